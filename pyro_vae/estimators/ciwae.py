"""A weighted mean of the ELBO and the importance-weighted bound."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.averages import mean
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Terms

__all__ = ["CIWAE"]


class CIWAE(Estimator):
    r"""A weighted mean of the ELBO and the importance-weighted bound of the same draws.

    .. math:: a \, \frac1K \sum_k \log w_k + (1 - a) \log \frac1K \sum_k w_k

    The share a of the ELBO keeps a signal for the guide where that of the importance-weighted bound vanishes. The
    gradient is unbiased.

    References:
        Tighter variational bounds are not necessarily better (Rainforth et al., 2018), where a is called beta,
        https://arxiv.org/abs/1802.04537

    Args:
        share: a, from 0 (:class:`IWAE`) to 1 (the ELBO)
        num_particles: K
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: a share outside of [0, 1].

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> CIWAE(share=0.5).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(self, *, share: float = 0.5, num_particles: int = 5, **options: Any) -> None:
        super().__init__(num_particles=num_particles, **options)
        self.share = check_number("share", share, 0, 1)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the weighted mean of both bounds."""
        log_ratio = terms.log_ratio(beta)
        elbo, iwae = mean(terms.expect(log_ratio)), log_mean_exp(terms.log_expect(log_ratio))
        return self.share * elbo + (1 - self.share) * iwae
