"""A model and a guide with their arguments, and the structure of the program that they are."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyro
import torch
from torch import nn

from pyro_vae._util.random_state import fork_rng
from pyro_vae.programs.program import keep_buffers
from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.layout import PARTICLES, Layout, frames

__all__ = ["Call", "buffers_kept", "draw_shared", "module_of", "outline"]


class Outline(NamedTuple):
    """The structure of a program: its number of plate dimensions, the plate of the data, and if latents are shared."""

    nesting: int
    layout: Layout
    shared: bool


_OUTLINES: weakref.WeakKeyDictionary[Any, dict[Any, Outline]] = weakref.WeakKeyDictionary()


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

    def trace(self, function: Callable[..., Any], recorder: Recorder) -> Recorder:
        """Run the model or the guide under a handler and return the handler."""
        plate: AbstractContextManager[Any] = nullcontext()
        if self.num_particles > 1 or recorder.needs_layout:
            found = outline(self)
            recorder.layout = found.layout
            if self.num_particles > 1:
                plate = Particles(self.num_particles, -1 - found.nesting, found.layout)
        with plate, recorder:
            function(*self.args, **self.kwargs)
        return recorder


def outline(call: Call) -> Outline:
    """Return the structure of a program, from one run for each new pair of model and guide."""
    owner = getattr(call.model, "__self__", call.model)
    known = _OUTLINES.setdefault(owner, {})
    plain = {name: value for name, value in call.kwargs.items() if isinstance(value, (bool, int, str, type(None)))}
    key = getattr(call.model, "__name__", None), getattr(call.guide, "__name__", None), frozenset(plain.items())
    if key not in known:
        single = replace(call, num_particles=1)
        with fork_rng(call.args), buffers_kept(call), torch.no_grad():
            drawn = single.trace(call.guide, Recorder())
            scored = single.trace(call.model, Recorder({**drawn.sites, **drawn.subsamples}))
        messages = [*drawn.sites.values(), *scored.sites.values()]
        nesting = max((-frame.dim for m in messages for frame in frames(m)), default=0)
        layout = Layout.of(scored.sites.values())
        shared = any(not m["is_observed"] and not layout.contains(m) for m in scored.sites.values())
        known[key] = Outline(nesting, layout, shared)
    return known[key]


def draw_shared(call: Call, draws: Callable[[], Recorder]) -> dict[str, Any]:
    """Return the messages of the guide's sites that examples share, from a run of their own."""
    drawn = call.trace(call.guide, draws())
    layout = outline(call).layout
    return {name: message for name, message in drawn.sites.items() if not layout.contains(message)}


def buffers_kept(call: Call) -> AbstractContextManager[Any]:
    """Restore the buffers of model and guide that a further run changes, such as the statistics of a BatchNorm."""
    stack = ExitStack()
    for function in (call.model, call.guide):
        module = module_of(function)
        if module is not None:
            stack.enter_context(keep_buffers(module))
    return stack


def module_of(function: Callable[..., Any]) -> nn.Module | None:
    """Return the module that a model or guide is, or whose method it is, inside any handlers."""
    function = inspect.unwrap(function)
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None
