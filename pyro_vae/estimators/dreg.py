"""The doubly reparameterized gradient of the importance-weighted bound."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import (
    along_shared,
    refuse_dependent,
    refuse_points,
    split_gradient,
    with_gradient_of,
)
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Recorder, Terms

__all__ = ["DReG"]


class DReG(Estimator):
    r"""The importance-weighted bound, with the doubly reparameterized gradient of the guide.

    .. math:: \nabla_\phi \, \mathbb E\left[\log \frac1K \sum_k w_k\right] = \mathbb E\left[\sum_k \tilde w_k^2 \,
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}\right], \qquad
              \tilde w_k = \frac{w_k}{\sum_j w_j}

    The gradient of the model is that of the bound. Both are unbiased. The gradient of the guide is exactly zero where
    the guide is the exact posterior, and its signal-to-noise ratio rises with K as :math:`\sqrt K`, where that of the
    plain gradient falls. Parameters that the prior shares with the guide (VampPrior) also get the gradient of the
    model.

    References:
        Doubly reparameterized gradient estimators for Monte Carlo objectives (Tucker et al., 2019),
        https://arxiv.org/abs/1810.04152

    Args:
        num_particles: K
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: in the first step, a guide with a point estimate (a Delta) in place of a density.

    Example:
        >>> import torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> loss = DReG(num_particles=8).differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5))
        >>> gradients = torch.autograd.grad(loss, list(toy.program.posterior.parameters()))
        >>> max(float(g.abs().max()) for g in gradients) < 1e-9
        True
    """

    def __init__(self, *, num_particles: int = 5, **options: Any) -> None:
        super().__init__(num_particles=num_particles, **options)

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise if the guide has no density."""
        super().check_terms(terms, recorder)
        refuse_points(terms, "DReG")
        refuse_dependent(terms, "DReG")

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight; its gradient through a draw has the weight of the draw squared."""
        log_w = terms.log_w(beta)
        weights = log_w.detach().softmax(0)
        # the squared weights for beta = 1: the score of the guide enters the bound with beta
        path = weights * (1 - beta * (1 - weights))
        surrogate = split_gradient(terms, beta, model=weights, path=path)
        # that of a latent which examples share is a part of the score too, where the guide of an example depends on it
        log_q = sum(site.log_q_detached_params for site in terms.latent)
        surrogate = surrogate + along_shared(terms, log_q, beta * weights) if terms.latent else surrogate
        return with_gradient_of(log_mean_exp(log_w), surrogate)
