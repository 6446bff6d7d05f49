"""One importance-weighted bound for the model, several for the guide."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.estimators.gradients import along_shared, split_gradient, with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.estimators.miwae import MIWAE
from pyro_vae.trace import Terms

__all__ = ["PIWAE"]


class PIWAE(MIWAE):
    r"""PIWAE: one bound of M times K particles for the model, M bounds of K particles for the guide.

    .. math:: \theta:\ \log \frac{1}{MK} \sum_{m, k} w_{mk}, \qquad
              \phi:\ \frac1M \sum_m \log \frac1K \sum_k w_{mk}

    A tight bound is good for the model and bad for the signal-to-noise ratio of the guide's gradient; here each has
    its own bound from the same draws. The value is the bound of the model. Each gradient is unbiased for its own
    bound; together they are the gradient of no single function.

    References:
        Tighter variational bounds are not necessarily better (Rainforth et al., 2018),
        https://arxiv.org/abs/1802.04537

    Args:
        M: number of bounds that the guide follows
        K: number of particles of each
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> PIWAE(2, 3).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the bound of all particles; the gradient of the guide is that of the groups."""
        log_w = terms.log_w(beta)
        fixed = log_w.detach()
        guide = (self.groups(fixed).softmax(1) / self.M).reshape(fixed.shape)
        model = fixed.softmax(0)
        surrogate = split_gradient(terms, beta, model=model, path=guide, score=guide)
        surrogate = surrogate + along_shared(terms, terms.log_w(beta, detached_params=True), guide - model)
        return with_gradient_of(log_mean_exp(log_w), surrogate)
