"""Run guide and model once and hand over what an estimator needs: per datum, per particle, unscaled."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions.util import detach
from pyro.poutine import block
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import nn
from torch.func import functional_call

from pyro_vae._util.random_state import fork_rng
from pyro_vae.trace.terms import ENUM_DIM, PARTICLES, Draw, Site, Terms, in_data_plate

__all__ = ["Call", "Detached", "Record", "Site", "Terms", "draw_shared", "outline", "run"]


class Record(Messenger):
    """Keep the messages of all sample statements; replay the values of an earlier run where there are some.

    A discrete site with ``infer={"enumerate": "parallel"}`` gets all its values at once, at a dimension of its own.
    """

    def __init__(self, replay: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.enumerated: list[str] = []
        self.replay = replay or {}
        self.sites: dict[str, Any] = {}
        self.subsamples: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        earlier = self.replay.get(msg["name"])
        if earlier is not None and not msg["is_observed"]:
            msg["done"], msg["value"] = True, earlier["value"]
        elif self.enumerates(msg):
            values = self.values(msg)
            ones = [1] * (len(self.enumerated) - 1 - ENUM_DIM)
            msg["done"], msg["value"] = True, values.reshape(-1, *ones, *msg["fn"].event_shape)
            self.enumerated.append(msg["name"])

    def enumerates(self, msg: Any) -> bool:
        """Whether a site gets all its values."""
        return bool(msg["infer"]) and msg["infer"].get("enumerate") == "parallel" and not msg["is_observed"]

    def values(self, msg: Any) -> torch.Tensor:
        """Return all values of a site."""
        return msg["fn"].enumerate_support(expand=False)

    def _pyro_post_sample(self, msg: Any) -> None:
        kept = self.subsamples if type(msg["fn"]) is _Subsample else self.sites
        if msg["name"] in kept and kept is self.sites:
            raise ValueError(f"two sample statements are named {msg['name']!r}: give each site its own name")
        kept[msg["name"]] = msg


class Detached(Record):
    """Draw the latents of each datum without a gradient, for estimators that need none through the draw."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if in_data_plate(msg) and not msg["is_observed"] and isinstance(msg["value"], torch.Tensor):
            msg["value"] = msg["value"].detach()
        super()._pyro_post_sample(msg)


class Outline(NamedTuple):
    """What is known of a program after one run."""

    nesting: int
    shared: bool


_OUTLINES: weakref.WeakKeyDictionary[Any, Outline] = weakref.WeakKeyDictionary()


def outline(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Outline:
    """Return how many plates a program nests and whether data share latents, from one run for each new program."""
    program = getattr(model, "__self__", model)
    if program not in _OUTLINES:
        with fork_rng(args), torch.no_grad():
            terms = run(model, guide, args, kwargs)
        messages = (m for site in terms.sites for m in (site.model, site.guide) if m is not None)
        dims = (frame.dim for m in messages for frame in m["cond_indep_stack"] if frame.dim is not None)
        nesting = max((-dim for dim in dims), default=0)
        _OUTLINES[program] = Outline(nesting, not all(site.local for site in terms.latent))
    return _OUTLINES[program]


class Particles(pyro.plate):
    """The plate over particles, which leaves alone what stands outside the plate of the data.

    A latent that data share is drawn once for all particles: a mean over particles within a logarithm, each with
    a draw of its own, would be no bound on the evidence of all data together.
    """

    def _process_message(self, msg: Any) -> None:
        if in_data_plate(msg):
            super()._process_message(msg)


@dataclass(frozen=True)
class Call:
    """One call of a model and a guide: what it takes to run them again."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    num_particles: int = 1
    nesting: int | None = None

    def plate(self) -> AbstractContextManager[Any]:
        """Return the plate over particles, on the left of those of the program."""
        if self.num_particles == 1:
            return nullcontext()
        nesting = self.nesting
        if nesting is None:
            nesting = outline(self.model, self.guide, self.args, self.kwargs).nesting
        return Particles(PARTICLES, self.num_particles, dim=-1 - nesting)

    def trace(self, function: Callable[..., Any], record: Record) -> Record:
        """Run model or guide under a handler and return the handler."""
        with self.plate(), record:
            function(*self.args, **self.kwargs)
        return record


def run(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    num_particles: int = 1,
    nesting: int | None = None,
    held: bool = False,
    record: Callable[[], Record] = Record,
) -> Terms:
    """Trace the guide, replay the model against it, and pair their sites.

    Args:
        model: the model
        guide: the guide, which takes the same arguments
        args: arguments of both
        kwargs: keyword arguments of both
        num_particles: how many draws of the latents; more than one are drawn at once, in a plate on the left
        nesting: how many plates the program nests; found by one more run for a new program if not given
        held: whether the density of the guide with its parameters held is wanted too (``Site.path_log_q``)
        record: makes the handler of the guide, which decides how its sites are drawn

    Returns:
        The sites of the run.

    Raises:
        ValueError: model and guide differ in their latent sites.
    """
    call = Call(model, guide, args, kwargs, num_particles, nesting)
    drawn = call.trace(guide, record())
    kept = hold(call, drawn) if held else {}
    scored = call.trace(model, Record({**drawn.sites, **drawn.subsamples}))
    latent = {name for name, site in scored.sites.items() if not site["is_observed"]}
    auxiliary = {name: site for name, site in drawn.sites.items() if site["infer"].get("is_auxiliary")}
    refuse_local(auxiliary)
    q = {name for name, site in drawn.sites.items() if not site["is_observed"]} - set(auxiliary)
    if latent != q:
        raise ValueError(
            "model and guide must draw the same latent sites, but "
            + "; ".join(
                f"{sorted(names)} stand only in the {where}"
                for names, where in ((latent - q, "model"), (q - latent, "guide"))
                if names
            )
        )
    sites = {
        name: Site(name, msg, drawn.sites[name] if name in latent else None) for name, msg in scored.sites.items()
    }
    order = list(drawn.sites)
    before: set[str] = set()
    for name in (n for n in scored.sites if n in latent):
        # The closed form integrates over this site alone: right if every latent that the model's density may
        # depend on was drawn before it in the guide, so that none of them depends on it.
        sites[name].enumerated = name in drawn.enumerated
        sites[name].separable = before <= set(order[: order.index(name)])
        sites[name].held = kept.get(name)
        sites[name].reparameterized = drawn.sites[name]["fn"].has_rsample
        before.add(name)
    # such as the unconstrained value of an autoguide, whose image is the latent: a density of the guide alone
    for name, site in auxiliary.items():
        sites[name] = Site(name, site, site, auxiliary=True, reparameterized=site["fn"].has_rsample)
    values = {name: (site["value"], site["fn"].event_dim) for name, site in drawn.sites.items() if name in latent}
    return Terms(
        [site for site in sites.values() if site.guide is not None],
        [site for site in sites.values() if site.guide is None],
        num_particles,
        (Draw(0, num_particles, values),),
        call,
    )


def refuse_local(auxiliary: dict[str, Any]) -> None:
    """Refuse auxiliary sites of single data: estimators that weigh draws would weigh them and what is made of them."""
    for name, site in auxiliary.items():
        if in_data_plate(site):
            raise ValueError(
                f"guide: the auxiliary site {name!r} stands in the plate of the data, where the latent itself has to "
                "be drawn: give it a distribution of its own, such as a TransformedDistribution"
            )


def draw_shared(call: Call, record: Callable[[], Record]) -> dict[str, Any]:
    """Return the messages of the guide's sites that data share, from a run of its own."""
    drawn = call.trace(call.guide, record())
    return {name: site for name, site in drawn.sites.items() if not in_data_plate(site)}


def hold(call: Call, drawn: Record) -> dict[str, Any]:
    """Return the messages of the guide with its parameters held, at the values that it drew.

    A single site has its distribution detached. With several, the parameters of one may depend on the draw of
    another, and the gradient by that draw has to stay: the guide runs again, its parameters constant, at aliases
    of the draws, where what comes back to a draw as the place of a density is apart from what came of it later.
    """
    if len(drawn.sites) == 1:
        return {
            name: {**site, "fn": site["fn"].detached() if hasattr(site["fn"], "detached") else detach(site["fn"])}
            for name, site in drawn.sites.items()
        }
    program = getattr(call.guide, "__self__", None)
    if not isinstance(program, nn.Module):
        raise ValueError(
            f"guide: it draws the sites {sorted(drawn.sites)}, and holding its parameters needs to know them: use the "
            "guide of a Program, such as pyro_vae.programs.FunctionProgram(model, guide, net=net)"
        )
    for site in drawn.sites.values():
        site["value"] = site["value"].view_as(site["value"])
    method = Method(program, call.guide.__name__)
    constants = {name: p.detach() for name, p in method.named_parameters()}
    again = Record({**drawn.sites, **drawn.subsamples})
    # the constants are no parameters: nobody who listens for those is to hear of them
    with block(hide_fn=lambda msg: msg["type"] == "param"):
        call.trace(lambda *args, **kwargs: functional_call(method, constants, args, kwargs), again)
    return again.sites


class Method(nn.Module):
    """A method of a module as the ``forward`` of one."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method."""
        return getattr(self.module, self.name)(*args, **kwargs)
