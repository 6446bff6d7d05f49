"""Divergences of a latent site from its prior, in closed form and per dimension."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Delta
from pyro.distributions.util import broadcast_shape
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
    if isinstance(site.guide["fn"], Delta):
        return None
    try:
        kl = closed_form(site.guide["fn"], site.model["fn"])
    except NotImplementedError:
        return None
    if readable(site.guide["mask"], site.model["mask"]):
        return site.per_example(site.guide, kl)
    log_q, log_p = (message["fn"].log_prob(message["value"]) for message in (site.guide, site.model))
    return site.per_example({**site.guide, "mask": None}, masked_divergence(site, kl, log_q, log_p))


def kl_per_dimension(site: Any) -> Tensor:
    """Divergence of each dimension."""
    q, p = (factors(message["fn"]) for message in (site.guide, site.model))
    if q is None or p is None or site.enumerated or site.marginal is not None:
        raise ValueError(
            f"free_bits: guide and model must be products over the dimensions of site {site.name!r} to give each "
            "dimension free bits of its own: use free_bits=PerSite(nats)"
        )
    value, event_dim = site.guide["value"], site.guide["fn"].event_dim
    kl = None
    if site.closed_form:
        try:
            kl = closed_form(q, p)
        except NotImplementedError:
            pass
    kl = masked_divergence(site, kl, q.log_prob(value), p.log_prob(value), event_dim)
    return site.layout.per_example(kl.reshape(*kl.shape[: kl.dim() - event_dim], -1), site.guide, event_dim=1)


def masked_divergence(site: Any, kl: Tensor | None, log_q: Tensor, log_p: Tensor, event_dim: int = 0) -> Tensor:
    """Return a divergence without masked entries: in closed form where the masks of guide and model agree.

    Args:
        site: a latent site
        kl: the divergence in closed form, None where there is none
        log_q: log-density under the guide, for each entry of the batch shape and ``event_dim`` further dimensions
        log_p: log-density under the model, likewise
        event_dim: number of these dimensions
    """
    masks = site.guide["mask"], site.model["mask"]
    q, p = (m.reshape(m.shape + (1,) * event_dim) if isinstance(m, Tensor) else m for m in masks)
    if kl is not None and readable(*masks):  # they are equal
        return masked(q, kl)
    sampled = masked(q, log_q) - masked(p, log_p)
    return sampled if kl is None else torch.where(q == p, masked(q, kl), sampled)


def closed_form(q: Any, p: Any) -> Tensor:
    """Return the divergence of two distributions at their joint batch shape, which torch does not always broadcast."""
    if q.batch_shape != p.batch_shape:
        shape = torch.Size(broadcast_shape(q.batch_shape, p.batch_shape))
        q, p = (fn if fn.batch_shape == shape else fn.expand(shape) for fn in (q, p))
    kl = kl_divergence(q, p)
    if not isinstance(kl, Tensor):  # the number 0 where a distribution is masked as a whole
        raise NotImplementedError
    return kl


def factors(fn: Any) -> Any:
    """Return the distribution of a single dimension of an event, None if the event is no product over dimensions."""
    base = getattr(fn, "base_dist", None)
    if fn.event_dim == 0:
        return fn
    whole = base is not None and getattr(fn, "reinterpreted_batch_ndims", -1) == fn.event_dim
    return base if whole and base.event_dim == 0 else None
