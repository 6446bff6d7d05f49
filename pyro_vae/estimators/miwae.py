"""Several importance-weighted bounds, averaged."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Terms

__all__ = ["MIWAE"]


class MIWAE(Estimator):
    r"""The mean of M importance-weighted bounds of K particles each.

    .. math:: \frac1M \sum_{m=1}^M \log \frac1K \sum_{k=1}^K w_{mk}

    Its expectation is that of :class:`IWAE` with K particles, and its variance is M times smaller. K = 1 gives the
    ELBO, M = 1 the importance-weighted bound. The gradient is unbiased.

    References:
        Tighter variational bounds are not necessarily better (Rainforth et al., 2018),
        https://arxiv.org/abs/1802.04537

    Args:
        M: number of bounds that are averaged, outside the logarithm
        K: number of particles of each bound, inside the logarithm
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: M or K is below 1.
        TypeError: ``num_particles`` is given, which is M times K.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> MIWAE(2, 3).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(self, M: int = 8, K: int = 8, **options: Any) -> None:
        self.M, self.K = check_int("M", M), check_int("K", K)
        if "num_particles" in options:
            raise TypeError(f"num_particles: {type(self).__name__} has M times K particles: give it M and K")
        super().__init__(num_particles=self.M * self.K, **options)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the mean over groups of the log of the mean weight."""
        return log_mean_exp(self.groups(terms.log_w(beta)), 1).mean(0)

    def groups(self, log_w: Tensor) -> Tensor:
        """Reshape ``(M * K, batch)`` to ``(M, K, batch)``."""
        return log_w.reshape(self.M, self.K, -1)
