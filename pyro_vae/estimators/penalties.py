"""Penalties that any estimator subtracts from its bound: free bits and a capacity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int, check_number
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.trace import Detached, Recorder, ScoredEverywhere, Site, Terms
from pyro_vae.trace.antithetic import Antithetic
from pyro_vae.trace.layout import same

__all__ = ["Capacity", "FreeBits", "PerDimension", "PerSite", "scores_of"]


#: Score functions of the draws of each example, and of those that examples share.
Scores = tuple[Tensor | float, Tensor | float]
NO_SCORES: Scores = (0.0, 0.0)


@dataclass(frozen=True)
class FreeBits(ABC):
    r"""A hinge on the divergence of each group of latents, averaged over the batch.

    .. math:: \sum_g \max(\lambda, \mathrm{KL}_g) - \mathrm{KL}_g = \sum_g \max(\lambda - \mathrm{KL}_g, 0)

    is subtracted from the bound: under the ELBO each group costs at least :math:`\lambda`. Any other bound pays the
    same hinge, so that groups below it are pulled to the prior by the bound alone.

    References:
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016), appendix C.8,
        https://arxiv.org/abs/1606.04934

    Args:
        nats: :math:`\lambda`, nats of each group

    Raises:
        ValueError: a negative or infinite number of nats.
    """

    nats: float

    def __post_init__(self) -> None:
        check_number("free_bits", self.nats, 0)

    @abstractmethod
    def divergences(self, terms: Terms, site: Site) -> Tensor:
        """Return the divergence of each group of a site, ``(particles, batch, groups)``."""

    def hinge(self, terms: Terms, scores: Scores = NO_SCORES) -> Tensor:
        """Return the hinges of all sites, each times the scale of the site, summed over the batch, ``()``.

        Args:
            terms: one run of guide and model
            scores: see :func:`over_batch`
        """
        each = [(self.divergences(terms, site), site.scale) for site in terms.latent]
        return sum(over_batch(kl, scale, lambda kl: torch.relu(self.nats - kl).sum(-1), scores) for kl, scale in each)


class PerDimension(FreeBits):
    """Free bits for each dimension of each latent site; ``free_bits=0.5`` is short for ``PerDimension(0.5)``.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> bound = pv.estimators.ELBO(free_bits=0.5)
        >>> bound.differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([])
    """

    def divergences(self, terms: Terms, site: Site) -> Tensor:
        """Return the divergence of each dimension."""
        return site.kl_per_dimension


class PerSite(FreeBits):
    """Free bits for each latent site as a whole, such as each layer of a hierarchy.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> bound = pv.estimators.ELBO(free_bits=PerSite(2.0))
        >>> bound.differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([])
    """

    def divergences(self, terms: Terms, site: Site) -> Tensor:
        """Return the divergence of the site."""
        return terms.divergence(site).unsqueeze(-1)


@dataclass(frozen=True)
class Capacity:
    r"""A penalty that keeps the KL divergence near a rising target, in place of a weighted divergence.

    .. math:: -\gamma \, | \overline{\mathrm{KL}} - C_t |, \qquad C_t = C \min(t / T, 1)

    replaces :math:`-\beta \, \mathrm{KL}` in the bound of each example, with the divergence averaged over the batch.

    References:
        Understanding disentangling in beta-VAE (Burgess et al., 2018), https://arxiv.org/abs/1804.03599

    Args:
        nats: C, the target in nats per example
        num_steps: T, the training step at which the target is reached
        gamma: weight of the distance from the target

    Raises:
        ValueError: fewer than one step, or a negative target or weight.

    Example:
        >>> import torch, pyro_vae as pv
        >>> capacity = Capacity(25.0, 10_000)
        >>> capacity(2_000)
        5.0
        >>> capacity.penalty(torch.tensor(10.0), 5.0)
        tensor(5000.)
        >>> toy = pv.testing.LinearGaussian()
        >>> elbo = pv.estimators.ELBO(capacity=capacity)
        >>> elbo.differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([])
    """

    nats: float
    num_steps: int
    gamma: float = 1000.0

    def __post_init__(self) -> None:
        check_int("num_steps", self.num_steps)
        check_number("nats", self.nats, 0)
        check_number("gamma", self.gamma, 0)

    def __call__(self, step: int) -> float:
        """Return the target at a step, in nats."""
        return self.nats * min(step / self.num_steps, 1.0)

    def penalty(self, kl: Tensor, target: float | Tensor) -> Tensor:
        """Return what the mean divergence of a batch, ``()``, costs under a target."""
        return self.gamma * (kl - target).abs()

    def distance(self, terms: Terms, target: float | Tensor, scores: Scores = NO_SCORES) -> Tensor | float:
        """Return the penalty times the scale of the examples, summed over the batch, ``()``.

        Args:
            terms: one run of guide and model
            target: the target in nats
            scores: see :func:`over_batch`

        Raises:
            ValueError: the latent sites of an example have different scales.
        """
        if not terms.latent:
            return 0.0
        first = terms.latent[0]
        for site in terms.latent:
            if not same(site.scale, first.scale):
                raise ValueError(
                    f"capacity: expected one scale for all latents of an example, got {first.scale} for "
                    f"{first.name!r} and {site.scale} for {site.name!r}: use one poutine.scale around the whole "
                    "program, or free_bits"
                )
        kl = sum(terms.divergence(site) for site in terms.latent).unsqueeze(-1)
        return over_batch(kl, first.scale, lambda kl: self.penalty(kl.sum(-1), target), scores)


def over_batch(
    kl: Tensor, scale: float | Tensor, penalty: Callable[[Tensor], Tensor], scores: Scores = NO_SCORES
) -> Tensor:
    r"""Return a penalty of mean divergences, times the sum of the scales of all examples, ``()``.

    .. math:: S \, f\left(\frac1S \sum_n s_n \, \frac1K \sum_k \mathrm{KL}_{kn}\right), \qquad S = \sum_n s_n

    An example of scale 2 counts as two examples. Where the divergences depend on draws without a gradient, the score
    of each draw has the penalty as its signal, minus that with the mean of the other particles in its place.

    Args:
        kl: ``(particles, batch, groups)``
        scale: s, a number or ``(batch,)``
        penalty: f, from ``(..., groups)`` to ``(...)``
        scores: score functions of the draws of each example, ``(particles, batch)``, and of those that examples share,
            ``(particles, 1)``; 0.0 where a gradient goes through all draws
    """
    k, n, _ = kl.shape
    weight = scale.expand(n).unsqueeze(-1) if isinstance(scale, Tensor) else scale
    total = weight.sum() if isinstance(scale, Tensor) else scale * n
    share = weight / total
    value = total * penalty((share * kl.mean(0)).sum(0))
    if k == 1:  # in closed form
        return value
    kl = kl.detach()
    mean, others = (share * kl.mean(0)).sum(0), share * (kl.mean(0) - kl) / (k - 1)
    for score, change in zip(scores, (others, others.sum(1, keepdim=True)), strict=True):
        if isinstance(score, Tensor):
            signal = value.detach() - total * penalty(mean + change)
            value = with_gradient_of(value, value + (signal * score).sum())
    return value


def scores_of(draws: type[Recorder], terms: Terms) -> Scores:
    """Return the score functions of the draws that carry no gradient, for :func:`over_batch`.

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
            before = {name for order in terms.order for name in order[: order.index(site.name)]}
            blocked = any(other.name in before and (detached or not other.reparameterized) for other in local.latent)
            if blocked or (site.closed_form_kl is None and (detached or not site.reparameterized)):
                raise ValueError(
                    f"free_bits or capacity: the divergence of site {site.name!r} depends on draws without a "
                    "gradient, and no independent particle gives a baseline: use ReinforceLOO or VIMCO"
                )
    return local.log_q() if detached else local.score_function(), shared.score_function()
