"""The variational Renyi bound."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.averages import mean
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Terms

__all__ = ["Renyi"]


class Renyi(Estimator):
    r"""The variational Renyi bound, which for an order between 0 and 1 lies between the evidence and the ELBO.

    .. math:: L_\alpha = \frac{1}{1 - \alpha} \log \mathbb E_q\left[w^{1 - \alpha}\right]
              = \log p(x) - D_\alpha(q \,\|\, p(z \mid x)), \qquad w = \frac{p(x, z)}{q(z \mid x)}

    :math:`\alpha \to 1` is the ELBO, :math:`\alpha = 0` the importance-weighted bound. A negative order lies above the
    evidence, one above 1 below the ELBO. The mean over K particles is inside the logarithm, so that a finite K
    estimates :math:`L_\alpha` with a **bias**: downwards for :math:`\alpha < 1`, upwards for :math:`\alpha > 1`.

    References:
        Renyi divergence variational inference (Li and Turner, 2016), https://arxiv.org/abs/1602.02311

    Args:
        alpha: order of the divergence
        num_particles: K
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: alpha is not finite.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> Renyi(alpha=0.5).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(self, *, alpha: float = 0.5, num_particles: int = 5, **options: Any) -> None:
        super().__init__(num_particles=num_particles, **options)
        self.alpha = check_number("alpha", alpha)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the estimate of each example."""
        log_ratio, power = terms.log_ratio(beta), 1 - self.alpha
        if power == 0:
            return mean(terms.expect(log_ratio))
        return log_mean_exp(terms.log_expect(power * log_ratio)) / power
