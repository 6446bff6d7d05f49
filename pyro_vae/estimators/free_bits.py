"""Free bits: a divergence below which nothing is gained by having less of it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pyro_vae.trace.terms import Terms

__all__ = ["FreeBits", "PerDimension", "PerSite"]


class FreeBits:
    r"""A hinge on the divergence of each group of latents, averaged over the batch.

    .. math:: \sum_g \max(\lambda, \mathrm{KL}_g) - \mathrm{KL}_g = \sum_g \max(\lambda - \mathrm{KL}_g, 0)

    is taken off whatever bound the estimator has: under the ELBO each group costs at least :math:`\lambda`, and any
    other bound pays the same hinge, so that groups below it feel no pull to the prior beyond that of the bound itself.

    References:
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016), appendix C.8,
        https://arxiv.org/abs/1606.04934

    Args:
        nats: :math:`\lambda`, nats of each group

    Raises:
        ValueError: a negative or infinite number of nats.
    """

    #: What is read of each latent site.
    quantity: ClassVar[str]

    def __init__(self, nats: float) -> None:
        if not 0 <= nats < float("inf"):
            raise ValueError(f"free_bits: expected a number of nats of at least 0, got {nats}")
        self.nats = nats

    def hinge(self, terms: Terms) -> Tensor:
        """Return the sum of the hinges, of shape ``()``."""
        raise NotImplementedError


class PerDimension(FreeBits):
    """Free bits for each dimension of each latent site: ``free_bits=0.5`` is short for this.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> bound = pv.estimators.ELBO(free_bits=0.5)
        >>> bound.differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([])
    """

    quantity = "dimension_kl"

    def hinge(self, terms: Terms) -> Tensor:
        """Return the sum over sites and dimensions, of shape ``()``."""
        return sum(torch.relu(self.nats - site.dimension_kl.mean((0, 1))).sum() for site in terms.latent)


class PerSite(FreeBits):
    """Free bits for each latent site as a whole, such as each layer of a hierarchy.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> bound = pv.estimators.ELBO(free_bits=PerSite(2.0))
        >>> bound.differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([])
    """

    quantity = "closed_kl"

    def hinge(self, terms: Terms) -> Tensor:
        """Return the sum over sites, of shape ``()``."""
        return sum(torch.relu(self.nats - terms.kl(site).mean()) for site in terms.latent)
