"""A model and a guide with their arguments, and the structure of the program that they are."""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyro
from torch import Tensor, nn

from pyro_vae._util.random_state import fork_rng_unlocked
from pyro_vae.programs.program import keep_buffers
from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.layout import Layout
from pyro_vae.trace.matching import check_sites
from pyro_vae.trace.plates import PARTICLES, frames

__all__ = ["Call", "buffers_kept", "code_of", "draw_shared", "known_of", "module_of", "modules_of", "outline"]


class Outline(NamedTuple):
    """The structure of a program: number of plate dimensions, plate of the data, and whether latents are shared.

    Sites of the guide and of the model whose scales are equal tensors have one number in ``scales``.
    """

    nesting: int
    layout: Layout
    shared: bool
    scales: Mapping[tuple[str, str], int]


#: What torch says about tensors whose shapes do not fit.
SHAPES = re.compile(r"\b(shapes?|sizes?|dim|dimensions?|broadcast\w*)\b", re.IGNORECASE)

#: The largest number of outlines of a pair of model and guide: arguments may be numbers that differ in each step.
MAX_KNOWN = 64

#: What earlier runs found out, by the owners of model and guide, then by everything else that decides the structure:
#: outlines, and None for a check that was passed.
_KNOWN: weakref.WeakKeyDictionary[Any, weakref.WeakKeyDictionary[Any, dict[Any, Any]]]
_KNOWN = weakref.WeakKeyDictionary()


class Particles(pyro.plate):
    """The plate over particles, which leaves sites outside the plate of the data alone.

    A latent that examples share is drawn once for all particles: with a draw per particle inside the logarithm, the
    mean would be no bound on the evidence of all data together.
    """

    def __init__(self, size: int, dim: int, layout: Layout) -> None:
        super().__init__(PARTICLES, size, dim=dim)
        self.layout = layout

    def _process_message(self, msg: Any) -> None:
        if self.layout.contains(msg):
            super()._process_message(msg)


@dataclass(frozen=True)
class Call:
    """A model and a guide with their arguments, so that they can run again.

    Args:
        model: the model
        guide: the guide, called with the same arguments
        args: arguments of both
        kwargs: keyword arguments of both
        num_particles: number of draws of the latents of each example, all at once in a plate on the left
        shared_per_particle: draw also latents that examples share once per particle; once for all particles if False

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> call = Call(toy.program.model, toy.program.guide, (toy.draw(5),), {}, num_particles=3)
        >>> call.trace(call.guide, pv.trace.Recorder()).sites["z"]["value"].shape
        torch.Size([3, 5, 2])
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    num_particles: int = 1
    shared_per_particle: bool = False

    @property
    def x(self) -> Any:
        """The batch: the first argument, which must be positional."""
        if not self.args:
            raise ValueError(
                f"x: expected a positional argument, got the keywords {sorted(self.kwargs)}: pass x first"
            )
        return self.args[0]

    @property
    def tensors(self) -> list[Tensor]:
        """All arguments that are tensors."""
        return [value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Tensor)]

    def trace(self, function: Callable[..., Any], recorder: Recorder) -> Recorder:
        """Run the model or the guide under a handler and return the handler."""
        plate: AbstractContextManager[Any] = nullcontext()
        if self.num_particles > 1 or recorder.needs_layout:
            found = outline(self)
            recorder.layout = found.layout
            if self.num_particles > 1:
                size, dim = self.num_particles, -1 - found.nesting
                everywhere = self.shared_per_particle
                plate = pyro.plate(PARTICLES, size, dim=dim) if everywhere else Particles(size, dim, found.layout)
        try:
            with plate, recorder:
                function(*self.args, **self.kwargs)
        except RuntimeError as error:
            if self.num_particles == 1 or type(error) is not RuntimeError or not SHAPES.search(str(error)):
                raise
            raise RuntimeError(
                f"{error}. There are {self.num_particles:,} particles, in a dimension on the left of all plates, and "
                "a run with one particle works: keep dimensions on the left, as z.expand(*z.shape[:-1], n) does"
            ) from error
        return recorder


def outline(call: Call) -> Outline:
    """Return the structure of a program, from one run for each new pair of model and guide.

    It may depend on the number of dimensions of a tensor argument, and on arguments that are numbers or strings.
    """
    args = tuple([kind_of(x) for x in call.args])
    kwargs = frozenset((name, kind_of(x)) for name, x in call.kwargs.items()) if call.kwargs else None
    key = code_of(call.model), code_of(call.guide), args, kwargs
    known = known_of(call)
    if key not in known:
        if len(known) >= MAX_KNOWN:
            known.clear()
        single = replace(call, num_particles=1)
        with fork_rng_unlocked(call.tensors), buffers_kept(call):  # with gradients, which a guide may compute
            drawn = single.trace(call.guide, Recorder())
            scored = single.trace(call.model, Recorder({**drawn.sites, **drawn.subsamples}, drawn.enumerated))
        layout = check_sites(call.guide, drawn, scored)
        messages = [*drawn.sites.values(), *scored.sites.values()]
        nesting = max((-frame.dim for m in messages for frame in frames(m)), default=0)
        shared = any(not m["is_observed"] and not layout.contains(m) for m in scored.sites.values())
        known[key] = Outline(nesting, layout, shared, equal_scales({"guide": drawn, "model": scored}))
    return known[key]


def equal_scales(runs: Mapping[str, Recorder]) -> dict[tuple[str, str], int]:
    """Return a number for each site whose scale is a tensor, the same for equal tensors; this waits for the device."""
    found: list[Tensor] = []
    numbers = {}
    for where, run in runs.items():
        for name, message in run.sites.items():
            scale = message["scale"]
            if type(scale) is Tensor:  # no other can be read while a step is compiled
                equal = [i for i, s in enumerate(found) if s is scale or (s.shape == scale.shape and s.equal(scale))]
                numbers[where, name] = equal[0] if equal else len(found)
                found += [] if equal else [scale]
    return numbers


def known_of(call: Call) -> dict[Any, Any]:
    """Return what earlier runs found out about a pair of model and guide: outlines, and checks that it passed."""
    model, guide = getattr(call.model, "__self__", call.model), getattr(call.guide, "__self__", call.guide)
    try:
        guides = _KNOWN.get(model)
        if guides is None:
            guides = _KNOWN[model] = weakref.WeakKeyDictionary()
        known = guides.setdefault(guide, {})
    except TypeError:  # objects without weak references or a hash
        known = {}
    return known


def kind_of(argument: Any) -> Any:
    """Return the properties of an argument that may change the structure of a program."""
    if isinstance(argument, Tensor):
        return argument.dim()
    return argument if isinstance(argument, (bool, int, str)) else type(argument)


def code_of(function: Callable[..., Any]) -> Any:
    """Return the code of a function: a program may have several models, also of one name in a class and its base."""
    return getattr(getattr(function, "__func__", function), "__code__", None)


def draw_shared(call: Call, draws: Callable[[], Recorder]) -> dict[str, Any]:
    """Return the messages of the guide's sites that examples share, from a run of their own.

    Enumerated sites are left out: their values are the same in every run.
    """
    with buffers_kept(call):
        drawn = call.trace(call.guide, draws())
    layout = outline(call).layout
    return {n: m for n, m in drawn.sites.items() if not layout.contains(m) and n not in drawn.enumerated}


def buffers_kept(call: Call) -> AbstractContextManager[Any]:
    """Restore the buffers of model and guide that a further run changes, such as the statistics of a BatchNorm."""
    stack = ExitStack()
    for module in {*modules_of(call.model), *modules_of(call.guide)}:
        stack.enter_context(keep_buffers(module))
    return stack


def modules_of(function: Callable[..., Any]) -> set[nn.Module]:
    """Return the module that a model or guide belongs to, or those that a plain function refers to by name."""
    module = module_of(function)
    if module is not None:
        return {module}
    found, seen, functions = set(), set(), [inspect.unwrap(function)]
    while functions:
        function = functions.pop()
        if not inspect.isfunction(function) or function in seen:
            continue
        seen.add(function)
        names = inspect.getclosurevars(function)
        values = [*names.nonlocals.values(), *names.globals.values()]
        found.update(value for value in values if isinstance(value, nn.Module))
        functions += [f for f in values if getattr(f, "__module__", None) == function.__module__]
    return found


def module_of(function: Callable[..., Any]) -> nn.Module | None:
    """Return the module that a model or guide is, or whose method it is, inside any handlers."""
    function = inspect.unwrap(function)
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None
