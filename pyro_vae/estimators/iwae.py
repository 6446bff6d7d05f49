"""The importance-weighted bound."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pyro_vae.estimators.base import Estimator
from pyro_vae.trace import Terms

__all__ = ["IWAE", "log_mean_exp"]


class IWAE(Estimator):
    r"""The importance-weighted bound of K particles.

    .. math:: \log p(x) \ge \mathbb E_{z_1, \dots, z_K \sim q}\left[\log \frac1K \sum_{k=1}^K w_k\right], \qquad
              w_k = \frac{p(x \mid z_k)\, p(z_k)^\beta}{q(z_k \mid x)^\beta}

    The logarithm is taken per example, and the sum over the batch and its scale stay outside: a subsampled loss is
    an unbiased estimate of the loss of all data. The bound rises with K to the evidence, but the signal-to-noise ratio
    of the guide's gradient falls as :math:`1 / \sqrt K` (use :class:`DReG`). The gradient is unbiased.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519;
        Tighter variational bounds are not necessarily better (Rainforth et al., 2018),
        https://arxiv.org/abs/1802.04537

    Args:
        num_particles: K
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> x = toy.draw(5)
        >>> IWAE(num_particles=5).per_datum(toy.program.model, toy.program.guide, x).shape
        torch.Size([5])
    """

    def __init__(self, *, num_particles: int = 5, **options: Any) -> None:
        super().__init__(num_particles=num_particles, **options)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight of each example."""
        return log_mean_exp(terms.log_w(beta))


def log_mean_exp(log_w: Tensor, dim: int = 0) -> Tensor:
    """Return the logarithm of the mean of exponentials, without an operation for a single particle."""
    if log_w.shape[dim] == 1:
        return log_w.squeeze(dim)
    return log_w.logsumexp(dim) - math.log(log_w.shape[dim])
