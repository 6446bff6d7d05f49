"""Penalties that any estimator subtracts from its bound: free bits and a capacity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int, check_number
from pyro_vae.estimators.mean_penalty import NO_SCORES, Scores, penalize_mean
from pyro_vae.trace import Site, Terms

__all__ = ["Capacity", "FreeBits", "PerDimension", "PerSite"]


@dataclass(frozen=True)
class FreeBits(ABC):
    r"""A hinge on the divergence of each group of latents, averaged over the batch.

    .. math:: \sum_g \max(\lambda, \mathrm{KL}_g) - \mathrm{KL}_g = \sum_g \max(\lambda - \mathrm{KL}_g, 0)

    is subtracted from the bound: under the ELBO each group costs at least :math:`\lambda`. Any other bound pays the
    same hinge, so that groups below it are pulled to the prior by the bound alone. In the average over the batch an
    example of scale 2 (``poutine.scale``, example weights) counts as two examples, and a masked one does not count.

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
            scores: see :func:`penalize_mean`
        """

        def missing(kl: Tensor) -> Tensor:
            return torch.relu(self.nats - kl).sum(-1)

        return sum(penalize_mean(self.divergences(terms, site), [site], missing, scores) for site in terms.latent)


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

    def distance(self, terms: Terms, target: float | Tensor, scores: Scores = NO_SCORES) -> Tensor:
        """Return the penalty times the scale of the examples, summed over the batch, ``()``.

        Args:
            terms: one run of guide and model
            target: the target in nats
            scores: see :func:`penalize_mean`

        Raises:
            ValueError: the latent sites of an example have different scales.
        """
        first = terms.latent[0]
        for site in terms.latent:
            if not terms.same_scale(site, first):
                raise ValueError(
                    f"capacity: expected one scale for all latents of an example, got {first.scale} for "
                    f"{first.name!r} and {site.scale} for {site.name!r}: use one poutine.scale around the whole "
                    "program, or free_bits"
                )
        kl = sum(terms.divergence(site) for site in terms.latent).unsqueeze(-1)
        return penalize_mean(kl, terms.latent, lambda kl: self.penalty(kl.sum(-1), target), scores)
