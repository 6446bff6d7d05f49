"""Penalties of the mean divergence of a batch, and their gradient where divergences depend on draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor

from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.trace import Detached, Recorder, ScoredEverywhere, Site, Terms
from pyro_vae.trace.antithetic import Antithetic

__all__ = ["NO_SCORES", "Scores", "penalize_mean", "scores_of"]

#: Score functions of the draws of each example, and of those that examples share.
Scores = tuple[Tensor | float, Tensor | float]
NO_SCORES: Scores = (0.0, 0.0)


def seen(sites: Sequence[Site]) -> Tensor | None:
    """Return which examples have a latent that is not masked, ``(batch,)``; None if no latent is masked."""
    counts = [site.read(unmasked) for site in sites]
    return None if any(count is None for count in counts) else sum(count[0] for count in counts) > 0


def unmasked(site: Site) -> Tensor | None:
    """Return the number of entries of a latent that count, ``(particles, batch)``; None if it has no mask."""
    message, fn = site.guide, site.guide["fn"]
    masks = [message["mask"], fn._mask if isinstance(fn, MaskedDistribution) else None]
    masks = [mask for mask in masks if mask is not None and mask is not True]
    if not masks:
        return None
    entries = torch.ones(fn.batch_shape, device=message["value"].device)
    for mask in masks:
        entries = entries * mask
    return site.layout.per_example(entries, message)


def penalize_mean(
    kl: Tensor, sites: Sequence[Site], penalty: Callable[[Tensor], Tensor], scores: Scores = NO_SCORES
) -> Tensor:
    r"""Return a penalty of mean divergences, times the sum of the scales of all examples, ``()``.

    .. math:: S \, f\left(\frac1S \sum_n s_n \, \frac1K \sum_k \mathrm{KL}_{kn}\right), \qquad S = \sum_n s_n

    An example of scale 2 counts as two examples. Where the divergences depend on draws without a gradient, the score
    of each draw has the penalty as its signal, minus that with the mean of the other particles in its place.

    Args:
        kl: ``(particles, batch, groups)``
        sites: the latent sites, whose scale is s; examples for which all of them are masked do not count
        penalty: f, from ``(..., groups)`` to ``(...)``
        scores: score functions of the draws of each example, ``(particles, batch)``, and of those that examples share,
            ``(particles, 1)``; 0.0 where a gradient goes through all draws
    """
    k, n, _ = kl.shape
    weight, mask = sites[0].scale, seen(sites)
    if mask is not None:
        weight = weight * mask.to(kl.dtype)
    if isinstance(weight, Tensor):
        weight = weight.expand(n).unsqueeze(-1)
        total = weight.sum()
        share = weight / total.clamp_min(torch.finfo(kl.dtype).tiny)  # all may be 0, such as those of padding
    else:
        total, share = weight * n, 1 / n
    value = total * penalty((share * kl.mean(0)).sum(0))
    if k == 1 or scores is NO_SCORES:
        return value
    kl = kl.detach()
    mean, others = (share * kl.mean(0)).sum(0), share * (kl.mean(0) - kl) / (k - 1)
    for score, change in zip(scores, (others, others.sum(1, keepdim=True)), strict=True):
        if isinstance(score, Tensor):
            signal = value.detach() - total * penalty(mean + change)
            value = with_gradient_of(value, value + (signal * score).sum())
    return value


def scores_of(draws: type[Recorder], terms: Terms) -> Scores:
    """Return the score functions of the draws that carry no gradient, for :func:`penalize_mean`.

    Args:
        draws: how the latents were drawn
        terms: one run of guide and model

    Raises:
        ValueError: a divergence depends on draws that have no independent draw to be compared with.
    """
    if not issubclass(draws, ScoredEverywhere):
        return NO_SCORES
    local, shared = terms.split()
    detached = issubclass(draws, Detached)
    if terms.num_particles == 1 or issubclass(draws, Antithetic):
        for site in local.latent:
            runs = [order for order in terms.order if site.name in order]
            before = {name for order in runs for name in order[: order.index(site.name)]}
            blocked = any(other.name in before and (detached or not other.reparameterized) for other in local.latent)
            if blocked or (site.closed_form_kl is None and (detached or not site.reparameterized)):
                raise ValueError(
                    f"free_bits or capacity: the divergence of site {site.name!r} depends on draws without a "
                    "gradient, and no independent particle gives a baseline: use ReinforceLOO or VIMCO"
                )
    return local.log_q() if detached else local.score_function(), shared.score_function()
