"""Run guide and model once and pair their sites."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions.util import detach
from pyro.poutine import block
from torch import Tensor, nn

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.substitute import functional_call
from pyro_vae._util.validation import check_int
from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.layout import PARTICLES, Layout, frames
from pyro_vae.trace.site import Site
from pyro_vae.trace.terms import Draw, Terms

__all__ = ["Call", "draw_shared", "outline", "run"]


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
    key = getattr(call.model, "__name__", None), getattr(call.guide, "__name__", None)
    if key not in known:
        with fork_rng(call.args), torch.no_grad():
            terms = run(call.model, call.guide, call.args, call.kwargs)
        messages = [m for site in terms.sites for m in (site.model, site.guide) if m is not None]
        nesting = max((-frame.dim for m in messages for frame in frames(m)), default=0)
        known[key] = Outline(nesting, terms.sites[0].layout, not all(site.local for site in terms.latent))
    return known[key]


def run(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    num_particles: int = 1,
    draws: Callable[[], Recorder] = Recorder,
) -> Terms:
    """Run the guide, replay the model against it, and pair their sites.

    Args:
        model: a Pyro model
        guide: its guide, called with the same arguments
        args: arguments of both
        kwargs: keyword arguments of both
        num_particles: number of draws of the latents of each example
        draws: makes the handler that decides how latents are drawn, such as ``pyro_vae.trace.Detached``

    Returns:
        The sites of the run.

    Raises:
        ValueError: model and guide have different latent sites.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = run(toy.program.model, toy.program.guide, (toy.draw(5),), num_particles=3)
        >>> [site.name for site in terms.latent], [site.name for site in terms.observed]
        (['z'], ['x'])
    """
    call = Call(model, guide, args, kwargs or {}, check_int("num_particles", num_particles))
    drawn = call.trace(guide, draws())
    if len(drawn.sites) > 1:
        # separate the gradient of the densities from the gradient of later draws of the guide
        for name, message in drawn.sites.items():
            if isinstance(message["value"], Tensor) and not message["is_observed"]:
                drawn.sites[name] = {**message, "value": message["value"].view_as(message["value"])}
    scored = call.trace(model, Recorder({**drawn.sites, **drawn.subsamples}))
    layout = Layout.of(scored.sites.values())
    auxiliary = {name: m for name, m in drawn.sites.items() if m["infer"].get("is_auxiliary")}
    latent = same_latents(scored, drawn, auxiliary, layout)
    stopped = cache(lambda what: rerun_guide(call, drawn, what))
    sites = []
    order, before = list(drawn.sites), set()
    for name, message in scored.sites.items():
        if name not in latent:
            sites.append(Site(name, message, layout=layout))
            continue
        # a closed form integrates over this site alone: it is unbiased if every latent that the model's density may
        # depend on was drawn before it in the guide, so that none of them depends on it
        earlier = before <= set(order[: order.index(name)])
        enumerated = name in drawn.enumerated
        sites.append(Site(name, message, drawn.sites[name], layout, enumerated, False, earlier, stopped))
        before.add(name)
    # such as the unconstrained value of an autoguide, whose image is the latent: a density of the guide alone
    sites += [Site(name, m, m, layout, auxiliary=True, stopped=stopped) for name, m in auxiliary.items()]
    values = {
        name: (m["value"], {"cond_indep_stack": m["cond_indep_stack"], "event_dim": m["fn"].event_dim})
        for name, m in drawn.sites.items()
        if name in latent
    }
    return Terms(
        [site for site in sites if site.guide is not None],
        [site for site in sites if site.guide is None],
        num_particles,
        (Draw(0, num_particles, values, layout),),
        call,
    )


def same_latents(scored: Recorder, drawn: Recorder, auxiliary: Mapping[str, Any], layout: Layout) -> set[str]:
    """Return the names of the latent sites; raise if model and guide differ in them."""
    for name, message in auxiliary.items():
        # estimators that weight draws would weight both the auxiliary site and the latent that is made of it
        if layout.name is not None and layout.contains(message):
            raise ValueError(
                f"guide: the auxiliary site {name!r} is in the plate of the data, where the latent itself must be "
                "drawn: give it a distribution of its own, such as a TransformedDistribution"
            )
    p = {name for name, message in scored.sites.items() if not message["is_observed"]}
    q = {name for name, message in drawn.sites.items() if not message["is_observed"]} - set(auxiliary)
    if p != q:
        alone = ((p - q, "model"), (q - p, "guide"))
        raise ValueError(
            "model and guide: expected the same latent sites, but "
            + "; ".join(f"{sorted(names)} occur only in the {where}" for names, where in alone if names)
        )
    return p


def draw_shared(call: Call, draws: Callable[[], Recorder]) -> dict[str, Any]:
    """Return the messages of the guide's sites that examples share, from a run of their own."""
    drawn = call.trace(call.guide, draws())
    layout = outline(call).layout
    return {name: message for name, message in drawn.sites.items() if not layout.contains(message)}


def rerun_guide(call: Call, drawn: Recorder, what: str) -> dict[str, Any]:
    """Return the messages of the guide with its parameters (``"params"``) or its draws (``"draws"``) held constant.

    With a single site its distribution, or its value, is detached. With several, the distribution of one may depend on
    the draw of another: the guide runs again at the same values.
    """
    if what == "draws":
        sites = {name: {**m, "value": m["value"].detach()} for name, m in drawn.sites.items()}
        if len(sites) == 1:
            return sites
        return call.trace(call.guide, Recorder({**sites, **drawn.subsamples})).sites
    if len(drawn.sites) == 1:
        return {
            name: {**m, "fn": m["fn"].detached() if hasattr(m["fn"], "detached") else detach(m["fn"])}
            for name, m in drawn.sites.items()
        }
    guide = inspect.unwrap(call.guide)
    program = guide if isinstance(guide, nn.Module) else getattr(guide, "__self__", None)
    if not isinstance(program, nn.Module):
        raise ValueError(
            f"guide: parameters must be known by name to hold them constant, and the guide of the "
            f"sites {sorted(drawn.sites)} is a plain function: wrap it by "
            "pyro_vae.programs.FunctionProgram(model, guide, net=net)"
        )
    method = MethodModule(program, call.guide)
    constants = {name: p.detach() for name, p in method.named_parameters()}
    recorder = Recorder({**drawn.sites, **drawn.subsamples})
    # the constants are no parameters of the program: handlers must not see them
    with block(hide_fn=lambda msg: msg["type"] == "param"):
        call.trace(lambda *args, **kwargs: functional_call(method, constants, args, kwargs), recorder)
    return recorder.sites


class MethodModule(nn.Module):
    """A function of a module as the ``forward`` of one, so that ``functional_call`` can replace its parameters."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.function = module, [function]  # in a list: no submodule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function[0](*args, **kwargs)
