"""OVIS: the importance-weighted bound for discrete latents, with a baseline for many particles."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.score import importance_weighted_scores
from pyro_vae.estimators.vimco import sum_of_others
from pyro_vae.trace import Scored, Terms

__all__ = ["OVIS"]


class OVIS(Estimator):
    r"""The importance-weighted bound for discrete latents, by score functions whose signal grows with K.

    .. math:: \nabla_\phi \, \mathbb E[\hat L] = \mathbb E\left[\sum_k
              \left(\hat L - \tilde w_k - c_k\right) \nabla_\phi \log q_\phi(z_k \mid x)\right], \qquad
              \hat L = \log \frac1K \sum_k w_k, \quad \tilde w_k = \frac{w_k}{\sum_j w_j}, \quad
              c_k = \log \frac1K \sum_{j \neq k} w_j

    The factor of a score is :math:`-\log(1 - \tilde w_k) - \tilde w_k`, about :math:`\tilde w_k^2 / 2`: for many
    effective particles it loses the part of order 1/K, which is noise, so that the signal-to-noise ratio of the
    guide's gradient rises as :math:`\sqrt K` instead of falling. The baseline :math:`c_k` does not depend on the
    draw: value and gradient are unbiased, as those of :class:`VIMCO`, which is the better choice for few effective
    particles: a weight that outgrows all others gets a large factor. Only sites without a reparameterized sampler have
    a score; for the others the gradient is that of :class:`IWAE`.

    References:
        Optimal variance control of the score-function gradient estimator for importance-weighted bounds (Liévin et
        al., 2020), https://arxiv.org/abs/2008.01998. The baseline above is the one of few effective particles there;
        the one of many differs from it by a constant of order :math:`1/K^2`.

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
        >>> OVIS().per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    draws = Scored

    def __init__(self, *, num_particles: int = 20, **options: Any) -> None:
        super().__init__(num_particles=check_int("num_particles", num_particles, 2), **options)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight; the signal of each score is what the bound gains by its weight."""
        return importance_weighted_scores(terms, beta, without_own)


def without_own(log_w: Tensor) -> Tensor:
    """Return the log of the mean weight with each weight in turn replaced by 0."""
    return sum_of_others(log_w) - math.log(log_w.shape[0])
