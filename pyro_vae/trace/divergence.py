"""Divergences of a latent site from its prior, in closed form and per dimension."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.trace.layout import readable
from pyro_vae.trace.masks import masked

__all__ = ["closed_form_kl", "factors", "kl_per_dimension"]


def closed_form_kl(site: Any) -> Tensor | None:
    """Divergence in closed form, None where there is none."""
    # the average over enumerated values is exact, and has a gradient where a value has probability 0
    if not site.closed_form or site.enumerated or site.marginal is not None:
        return None
    # the divergence that Pyro has for a Delta leaves out its log-density
    q, p = site.guide["fn"], site.model["fn"]
    if isinstance(q, Delta):
        return None
    try:
        kl = closed_form(q, p)
    except NotImplementedError:
        return None
    if readable(site.guide["mask"], site.model["mask"]):
        return site.per_example(site.guide, kl)
    return site.per_example({**site.guide, "mask": None}, masked_divergence(site, kl, q, p))


def kl_per_dimension(site: Any) -> Tensor:
    """Divergence of each dimension."""
    q, p = (factors(message["fn"]) for message in (site.guide, site.model))
    if q is None or p is None or site.enumerated or site.marginal is not None:
        raise ValueError(
            f"free_bits: guide and model must be products over the dimensions of site {site.name!r} to give each "
            "dimension free bits of its own: use free_bits=PerSite(nats)"
        )
    event_dim, kl = site.guide["fn"].event_dim, None
    if site.closed_form:
        try:
            kl = closed_form(q, p)
        except NotImplementedError:
            pass
    kl = masked_divergence(site, kl, q, p, event_dim)
    return site.layout.per_example(kl.reshape(*kl.shape[: kl.dim() - event_dim], -1), site.guide, event_dim=1)


def masked_divergence(site: Any, kl: Tensor | None, q: Any, p: Any, event_dim: int = 0) -> Tensor:
    """Return a divergence without masked entries: in closed form where the masks of guide and model agree.

    Elsewhere it is the difference of the log-densities at the draws.

    Args:
        site: a latent site
        kl: the divergence in closed form, None where there is none
        q: distribution of the guide, or of each dimension of its events
        p: distribution of the model, likewise
        event_dim: number of dimensions of events that are in the batch shape of q and p, but not of the masks
    """
    masks = site.guide["mask"], site.model["mask"]
    of_q, of_p = (m.reshape(m.shape + (1,) * event_dim) if isinstance(m, Tensor) else m for m in masks)
    if kl is not None and readable(*masks):  # they are equal
        return masked(of_q, kl)
    value = site.guide["value"]
    sampled = masked(of_q, q.log_prob(value)) - masked(of_p, p.log_prob(value))
    return sampled if kl is None else torch.where(of_q == of_p, masked(of_q, kl), sampled)


def closed_form(q: Any, p: Any) -> Tensor:
    """Return the divergence of two distributions at their joint batch shape, which torch does not always broadcast."""
    if q.batch_shape != p.batch_shape:
        shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
        q, p = (fn if fn.batch_shape == shape else fn.expand(shape) for fn in (q, p))
    kl = kl_divergence(q, p)
    if not isinstance(kl, Tensor):  # the number 0 where a distribution is masked as a whole
        raise NotImplementedError
    return kl


def factors(fn: Any) -> Any:
    """Return the distribution of a single dimension of an event, None if events are not products over dimensions."""
    base = getattr(fn, "base_dist", None)
    if fn.event_dim == 0:
        return fn
    whole = base is not None and getattr(fn, "reinterpreted_batch_ndims", -1) == fn.event_dim
    return base if whole and base.event_dim == 0 else None
