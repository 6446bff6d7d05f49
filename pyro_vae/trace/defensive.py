"""Draws from a mixture of the guide and the prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyro_vae.trace.call import Call, buffers_kept, draw_shared, outline
from pyro_vae.trace.handlers import Sampled
from pyro_vae.trace.plates import particle_dim
from pyro_vae.trace.scored import Detached
from pyro_vae.trace.simulate import check_scored
from pyro_vae.trace.terms import Terms
from pyro_vae.trace.tracing import run_call

__all__ = ["defensive_terms"]


class Defensive(Detached):
    """Draw all latents of an example from the guide, or replace them all by those of a run of the model.

    Args:
        replay: messages whose values are used in place of new draws
        prior: messages of a run of the model
        share: probability that the latents of a particle of an example are replaced
    """

    def __init__(self, replay: dict[str, Any], prior: Mapping[str, Any], share: float) -> None:
        super().__init__(replay)
        self.prior, self.share = prior, share
        self.replaced: Tensor | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        other = self.prior.get(msg["name"])
        if other is not None and not msg["is_observed"] and self.layout.contains(msg):
            value, event_dim = msg["value"], msg["fn"].event_dim
            if self.replaced is None:  # one choice for all sites
                dims = (particle_dim(msg), self.layout.dim if self.layout.name is not None else None)
                batch = value.shape[: value.dim() - event_dim]
                shape = [n if i - len(batch) in dims else 1 for i, n in enumerate(batch)]
                self.replaced = torch.rand(shape, device=value.device) < self.share
            msg["value"] = torch.where(self.replaced[(..., *[None] * event_dim)], other["value"], value)
        super()._pyro_post_sample(msg)


def defensive_terms(call: Call, share: float) -> Terms:
    """Run guide and model at draws from a mixture of the guide and the prior, with no gradient through a draw.

    Args:
        call: model, guide and arguments
        share: weight of the prior

    Raises:
        ValueError: a latent has no density under the guide or under the prior.
    """
    shared: dict[str, Any] = {}
    if outline(call).shared:
        shared = draw_shared(replace(call, num_particles=1), Detached)
    with torch.no_grad(), buffers_kept(call):
        prior = call.trace(call.model, Sampled(shared))
    replayed = {**shared, **prior.subsamples}
    terms = run_call(call, lambda: Defensive(replayed, prior.sites, share))
    check_scored(terms)
    for site in terms.latent:
        if site.local and site.marginal is not None:
            raise ValueError(
                f"defensive: expected a prior density of each latent, but that of site {site.name!r} is a sum "
                "together with other sites: leave it at 0, or draw the enumerated sites in the guide"
            )
    return terms
