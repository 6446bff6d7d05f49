"""The path derivative of the bound."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Terms

__all__ = ["StickingTheLanding"]


class StickingTheLanding(Estimator):
    r"""The importance-weighted bound (the ELBO for one particle), differentiated through the draws only.

    .. math:: \nabla_\phi \log \frac1K \sum_k w_k \approx
              \sum_k \tilde w_k \, \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi},
              \qquad \tilde w_k = \frac{w_k}{\sum_j w_j}

    The score of the guide, :math:`\partial \log q_\phi(z) / \partial \phi` at a fixed draw, is left out. With one
    particle its mean is zero: the gradient stays unbiased, and its variance is zero where the guide is the exact
    posterior. With more particles the gradient of the guide is **biased**, because the weights depend on the score;
    :class:`DReG` is the unbiased form. The gradient of the model is that of :class:`IWAE`.

    References:
        Sticking the landing (Roeder et al., 2017), https://arxiv.org/abs/1703.09194

    Args:
        options: ``num_particles``, ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of
            :class:`Estimator`

    Example:
        >>> import torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> loss = StickingTheLanding().differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5))
        >>> gradients = torch.autograd.grad(loss, list(toy.program.posterior.parameters()))
        >>> max(float(g.abs().max()) for g in gradients) < 1e-9
        True
    """

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight, with a gradient that leaves the score out."""
        return with_gradient_of(log_mean_exp(terms.log_w(beta)), log_mean_exp(terms.log_w(beta, detached_params=True)))
