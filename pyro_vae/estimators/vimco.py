"""VIMCO: the importance-weighted bound for discrete latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.score import importance_weighted_scores
from pyro_vae.trace import Scored, Terms

__all__ = ["VIMCO"]


class VIMCO(Estimator):
    r"""The importance-weighted bound for discrete latents, by score functions with a baseline for each particle.

    .. math:: \nabla_\phi \, \mathbb E[\hat L] = \mathbb E\left[\nabla_\phi \hat L
              + \sum_k \left(\hat L - \hat L_{-k}\right) \nabla_\phi \log q_\phi(z_k \mid x)\right], \qquad
              \hat L = \log \frac1K \sum_k w_k

    In :math:`\hat L_{-k}` the geometric mean of the other weights replaces :math:`w_k`: a baseline that does not
    depend on the draw, so that value and gradient are unbiased. Only sites without a reparameterized sampler have a
    score; for the others the gradient is that of :class:`IWAE`.

    References:
        Variational inference for Monte Carlo objectives (Mnih and Rezende, 2016), https://arxiv.org/abs/1602.06725

    Args:
        num_particles: K, at least 2
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: fewer than two particles.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> VIMCO().per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    draws = Scored

    def __init__(self, *, num_particles: int = 5, **options: Any) -> None:
        super().__init__(num_particles=check_int("num_particles", num_particles, 2), **options)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight; the signal of each score is what its particle adds to the bound."""
        return importance_weighted_scores(terms, beta, without_each)


def without_each(log_w: Tensor) -> Tensor:
    """Return the log of the mean weight with each weight in turn replaced by the geometric mean of the others."""
    k = log_w.shape[0]
    return torch.logaddexp(sum_of_others(log_w), (log_w.sum(0) - log_w) / (k - 1)) - math.log(k)


def sum_of_others(log_w: Tensor) -> Tensor:
    """Return for each particle the log of the sum of the weights of the others."""
    # sums over the particles before and after: subtracting a weight from the sum of all would lose precision
    edge = torch.full_like(log_w[:1], -torch.inf)
    before = torch.cat([edge, log_w[:-1].logcumsumexp(0)])
    after = torch.cat([log_w[1:].flip(0).logcumsumexp(0).flip(0), edge])
    return torch.logaddexp(before, after)
