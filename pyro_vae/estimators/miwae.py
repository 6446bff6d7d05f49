"""Several importance-weighted bounds, averaged."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace.terms import Terms

__all__ = ["MIWAE"]


class MIWAE(Estimator):
    r"""The mean of M importance-weighted bounds of K particles each.

    .. math:: \frac1M \sum_{m=1}^M \log \frac1K \sum_{k=1}^K w_{mk}

    Its expectation is that of :class:`IWAE` with K particles, its variance M times smaller: between the ELBO
    (K = 1) and the importance-weighted bound (M = 1) of as many draws. The gradient is unbiased.

    References:
        Tighter variational bounds are not necessarily better (Rainforth et al., 2018),
        https://arxiv.org/abs/1802.04537

    Args:
        M: number of bounds, which stand outside the logarithm
        K: particles of each bound, inside the logarithm
        options: ``particles_per_pass``, ``beta`` and ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: M or K is below 1.
        TypeError: ``num_particles`` is given, which is M times K.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> MIWAE(2, 3).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    enumerates = True

    def __init__(self, M: int = 8, K: int = 8, **options: Any) -> None:
        for name, value in (("M", M), ("K", K)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: {type(self).__name__} expects an int of at least 1, got {value!r}")
        if "num_particles" in options:
            raise TypeError(f"num_particles: {type(self).__name__} has M times K of them; give it M and K")
        super().__init__(num_particles=M * K, **options)
        self.M, self.K = M, K

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the mean over groups of the log of the mean weight."""
        return log_mean_exp(self.groups(terms.log_w(beta)), 1).mean(0)

    def groups(self, log_w: Tensor) -> Tensor:
        """Return (M * K, batch) as (M, K, batch)."""
        return log_w.reshape(self.M, self.K, -1)
