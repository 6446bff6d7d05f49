"""Run guide and model once and hand over what an estimator needs: per datum, per particle, unscaled."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.rng import fork_rng

__all__ = ["Site", "Terms", "run"]


#: Enumerated values stand on the left of every plate: programs nest four plates at most, particles are one more.
ENUM_DIM = -6


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
        elif msg["infer"] and msg["infer"].get("enumerate") == "parallel" and not msg["is_observed"]:
            fn = msg["fn"]
            values = fn.enumerate_support(expand=False)
            ones = [1] * (len(self.enumerated) - 1 - ENUM_DIM)
            msg["done"], msg["value"] = True, values.reshape(-1, *ones, *fn.event_shape)
            self.enumerated.append(msg["name"])

    def _pyro_post_sample(self, msg: Any) -> None:
        kept = self.subsamples if type(msg["fn"]) is _Subsample else self.sites
        if msg["name"] in kept and kept is self.sites:
            raise ValueError(f"two sample statements are named {msg['name']!r}: give each site its own name")
        kept[msg["name"]] = msg


@dataclass
class Site:
    """One sample statement: its density under the model and, where it is latent, under the guide."""

    name: str
    model: Any
    guide: Any = None
    separable: bool = False
    enumerated: bool = False

    @cached_property
    def raw_log_p(self) -> Tensor:
        """Log-density under the model as the distribution returns it, masked."""
        return masked(self.model, self.model["fn"].log_prob(self.model["value"]))

    @cached_property
    def log_p(self) -> Tensor:
        """Log-density under the model, unscaled, of shape (particles, batch)."""
        return per_datum(self.model, self.raw_log_p)

    @cached_property
    def log_q(self) -> Tensor:
        """Log-density under the guide, unscaled, of shape (particles, batch)."""
        return per_datum(self.guide, masked(self.guide, self.guide["fn"].log_prob(self.guide["value"])))

    @cached_property
    def raw_closed_kl(self) -> Tensor | None:
        """Divergence from guide to model in closed form, masked; None where there is none."""
        if not self.separable:
            return None
        try:
            return masked(self.guide, kl_divergence(self.guide["fn"], self.model["fn"]))
        except NotImplementedError:
            return None

    @property
    def closed_kl(self) -> Tensor | None:
        """Divergence from guide to model in closed form, (particles, batch); None where there is none."""
        return None if self.raw_closed_kl is None else per_datum(self.guide, self.raw_closed_kl)

    @property
    def drawn_kl(self) -> Tensor:
        """Log q - log p at the draw, whose mean is the divergence."""
        return self.log_q - self.log_p

    @property
    def scale(self) -> float | Tensor:
        """What the plate (N/B) and ``poutine.scale`` weigh this site with."""
        return self.model["scale"]

    @property
    def local(self) -> bool:
        """Whether the site stands in the plate of the data (``dim=-1``)."""
        return any(frame.dim == -1 for frame in self.model["cond_indep_stack"])


@dataclass
class Terms:
    """All sites of one run of guide and model."""

    latent: list[Site]
    observed: list[Site]
    num_particles: int

    @property
    def sites(self) -> list[Site]:
        """Latent, then observed sites."""
        return self.latent + self.observed

    @cached_property
    def log_weight(self) -> Tensor | None:
        """Log-probability under the guide of each combination of enumerated values, (*values, particles, batch).

        None where nothing is enumerated. Masks are left aside: it is by this weight that all other sites are averaged,
        also those of data for which the enumerated site itself does not count.
        """
        sites = [site.guide for site in self.latent if site.enumerated]
        return sum(per_datum(s, s["fn"].log_prob(s["value"])) for s in sites) if sites else None

    def expect(self, term: Tensor) -> Tensor:
        """Average over the enumerated values, (*values, particles, batch) to (particles, batch)."""
        if self.log_weight is None or term.dim() == 2:
            return term
        term = self.log_weight.exp() * term
        return term.sum(tuple(range(term.dim() - 2)))

    def log_expect(self, log_w: Tensor) -> Tensor:
        """Average the exponentials over the enumerated values and return the logarithm, (particles, batch)."""
        if self.log_weight is None:
            return log_w
        log_w = self.log_weight + log_w
        return log_w.logsumexp(tuple(range(log_w.dim() - 2)))

    def split(self) -> tuple[Terms, Terms]:
        """Return the sites in the plate of the data, and those outside of it."""
        return tuple(
            Terms(
                [s for s in self.latent if s.local == local],
                [s for s in self.observed if s.local == local],
                self.num_particles,
            )
            for local in (True, False)
        )


def masked(site: Any, log_prob: Tensor) -> Tensor:
    """Leave out what the mask of a site hides."""
    mask = site["mask"]
    if mask is None or mask is True:
        return log_prob
    if mask is False:
        return torch.zeros_like(log_prob)
    # where, not a product: a masked entry may be NaN or -inf
    return torch.where(mask, log_prob, log_prob.new_zeros(()))


def per_datum(site: Any, log_prob: Tensor) -> Tensor:
    """Bring a site's log-density to shape (particles, batch), enumerated values on the left."""
    particles = next((frame.dim for frame in site["cond_indep_stack"] if frame.name == PARTICLES), None)
    if not any(frame.dim == -1 for frame in site["cond_indep_stack"]):
        # a global site: one number a particle
        if particles is None:
            return log_prob.sum().reshape(1, 1)
        return log_prob.reshape(log_prob.shape[0], -1).sum(-1, True)
    # plates inside the data are summed; what is left of them, up to the enumerated values, has size one
    inner = tuple(d for d in range(max(ENUM_DIM + 1, -log_prob.dim()), -1) if d != particles)
    if inner:
        log_prob = log_prob.sum(inner)
    return log_prob.unsqueeze(-2) if particles is None else log_prob


#: Name of the plate over particles.
PARTICLES = "_particles"

_DEPTHS: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def depth(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> int:
    """Return how many plates a program nests, from one run for each new program."""
    program = getattr(model, "__self__", model)
    if program not in _DEPTHS:
        with fork_rng(args), torch.no_grad():
            terms = run(model, guide, args, kwargs)
        messages = (m for site in terms.sites for m in (site.model, site.guide) if m is not None)
        dims = (frame.dim for m in messages for frame in m["cond_indep_stack"] if frame.dim is not None)
        _DEPTHS[program] = max((-dim for dim in dims), default=0)
    return _DEPTHS[program]


def run(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    num_particles: int = 1,
    nesting: int | None = None,
) -> Terms:
    """Trace the guide, replay the model against it, and pair their sites.

    Args:
        model: the model
        guide: the guide, which takes the same arguments
        args: arguments of both
        kwargs: keyword arguments of both
        num_particles: how many draws of the latents; more than one are drawn at once, in a plate on the left
        nesting: how many plates the program nests; found by one more run for a new program if not given

    Returns:
        The sites of the run.

    Raises:
        ValueError: model and guide differ in their latent sites.
    """
    plate = nullcontext()
    if num_particles > 1:
        nesting = depth(model, guide, args, kwargs) if nesting is None else nesting
        plate = pyro.plate(PARTICLES, num_particles, dim=-1 - nesting)
    with plate:
        with Record() as drawn:
            guide(*args, **kwargs)
        with Record({**drawn.sites, **drawn.subsamples}) as scored:
            model(*args, **kwargs)
    latent = {name for name, site in scored.sites.items() if not site["is_observed"]}
    q = {
        name for name, site in drawn.sites.items() if not site["is_observed"] and not site["infer"].get("is_auxiliary")
    }
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
        before.add(name)
    return Terms(
        [site for site in sites.values() if site.guide is not None],
        [site for site in sites.values() if site.guide is None],
        num_particles,
    )
