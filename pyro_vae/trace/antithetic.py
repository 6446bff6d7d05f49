"""Antithetic pairs of Bernoulli draws."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import Bernoulli, Independent

from pyro_vae.trace.plates import particle_dim
from pyro_vae.trace.scored import Scored
from pyro_vae.trace.site import Site

__all__ = ["Antithetic", "bernoulli", "check_binary", "pair_score", "swap_pairs"]


class Antithetic(Scored):
    """Draw Bernoulli sites in pairs of particles: one from a uniform number u and one from 1 - u."""

    def __init__(self, replay: dict[str, Any] | None = None) -> None:
        super().__init__(replay)
        self.shapes: dict[str, torch.Size] = {}

    def _pyro_sample(self, msg: Any) -> None:
        # the plate over particles has not expanded the distribution yet
        self.shapes[msg["name"]] = getattr(msg["fn"], "batch_shape", torch.Size())
        super()._pyro_sample(msg)

    def _pyro_post_sample(self, msg: Any) -> None:
        # sites that examples share have no particles
        if particle_dim(msg) is not None and type(msg["fn"]) is not _Subsample and not msg["is_observed"]:
            self.check_message(msg)
            msg["value"] = pairs(msg)
        super()._pyro_post_sample(msg)

    def enumerates(self, msg: Any) -> bool:
        """Raise if a site is marked for enumeration, which leaves no single draws."""
        if super().enumerates(msg):
            raise ValueError(
                f"guide: antithetic pairs need draws, but site {msg['name']!r} is marked for enumeration: use ELBO, "
                "IWAE or Enumeration"
            )
        return False

    def check_message(self, msg: Any) -> None:
        """Raise if a site cannot be drawn in pairs."""
        check_binary(msg, "an antithetic pair")
        shape, dim = self.shapes[msg["name"]], particle_dim(msg)
        if len(shape) >= -dim and shape[dim] > 1:
            raise ValueError(
                f"guide: antithetic pairs need one layer of latents, but site {msg['name']!r} depends on an earlier "
                "draw: use VIMCO or ReinforceLOO"
            )


def check_binary(msg: Any, user: str) -> None:
    """Raise if a site is not drawn from a Bernoulli distribution.

    Args:
        msg: message of the site in the guide
        user: what needs binary latents, for the message
    """
    base = bernoulli(msg["fn"])
    if not isinstance(base, Bernoulli) or base.has_rsample:
        family = type(getattr(base, "base_dist", base)).__name__
        raise ValueError(
            f"guide: {user} needs binary latents, but site {msg['name']!r} is drawn from {family}: use a Bernoulli "
            "posterior, or another estimator, such as VIMCO or ReinforceLOO"
        )


def bernoulli(fn: Any) -> Any:
    """Return the distribution of a single binary value."""
    return fn.base_dist if isinstance(fn, Independent) else fn


def pairs(msg: Any) -> Tensor:
    """Draw the values of a site again, in pairs along its particles."""
    dim = particle_dim(msg) - msg["fn"].event_dim
    probs = bernoulli(msg["fn"]).probs.detach()
    first = probs.unflatten(dim, (-1, 2)).select(dim, 0)
    u = torch.rand_like(first)
    return torch.stack([u < first, 1 - u < first], dim).flatten(dim - 1, dim).to(probs.dtype)


def pair_score(site: Site) -> Tensor:
    r"""Return the sum of :math:`(b_i - \tilde b_i)\, \sigma(|\alpha_i|)\, \alpha_i`, first two factors constant."""
    fn, value = site.guide["fn"], site.guide["value"]
    logits = bernoulli(fn).logits
    differs = value - swap_pairs(value, particle_dim(site.guide) - fn.event_dim)
    score = differs * logits.detach().abs().sigmoid() * logits
    score = score.reshape(*score.shape[: score.dim() - fn.event_dim], -1).sum(-1)
    return site.layout.per_example(score, site.guide)  # a mask does not remove what depends on the draw


def swap_pairs(x: Tensor, dim: int) -> Tensor:
    """Return for each particle the entry of its partner, where ``dim`` counts the particles from the right."""
    return x.unflatten(dim, (-1, 2)).flip(dim).flatten(dim - 1, dim)
