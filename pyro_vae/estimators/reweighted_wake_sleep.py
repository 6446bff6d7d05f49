"""Reweighted wake-sleep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int, check_number
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Detached, Terms
from pyro_vae.trace.call import buffers_kept
from pyro_vae.trace.simulate import simulated_terms

__all__ = ["ReweightedWakeSleep"]


class ReweightedWakeSleep(Estimator):
    r"""The importance-weighted bound for the model, and the inclusive divergence for the guide.

    .. math:: \theta:\ \sum_k \tilde w_k \nabla_\theta \log p_\theta(x, z_k), \qquad
              \phi:\ (1 - s) \sum_k \tilde w_k \nabla_\phi \log q_\phi(z_k \mid x)
              + s\, \mathbb E_{p(x', z')}\left[\nabla_\phi \log q_\phi(z' \mid x')\right], \qquad
              \tilde w_k = \frac{w_k}{\sum_j w_j}

    The value is the bound of :class:`IWAE`, and the model maximizes it. The guide minimizes
    :math:`\mathrm{KL}(p(z \mid x) \,\|\, q(z \mid x))`: in the wake phase at the data, with weights normalized per
    example, a gradient that is **biased** by order 1/K; in the sleep phase at samples of the model, one per example of
    the batch, unbiased for the average over the model's own data. No gradient goes through a draw: latents of any kind
    are possible, and the signal of the guide does not fall with K.

    References:
        Reweighted wake-sleep (Bornschein and Bengio, 2015), https://arxiv.org/abs/1406.2751;
        Revisiting reweighted wake-sleep (Le et al., 2019), https://arxiv.org/abs/1805.10469

    Args:
        sleep: s, share of the sleep phase in the gradient of the guide: 0 is wake-wake, 1 wake-sleep
        num_particles: K, at least 2 unless the guide learns in the sleep phase alone
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: a share outside of [0, 1]; a single particle, whose weight is always 1; and with ``sleep``, in the
            first step, a program whose data cannot be simulated.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> ReweightedWakeSleep(sleep=0.5).per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    draws = Detached

    def __init__(self, *, sleep: float = 0.0, num_particles: int = 5, **options: Any) -> None:
        sleep = check_number("sleep", sleep, 0, 1)
        # the normalized weight of a single particle is 1 and carries no signal for the guide
        num_particles = check_int("num_particles", num_particles, 2 if sleep < 1 else 1)
        super().__init__(num_particles=num_particles, **options)
        self.sleep = sleep

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight; the guide maximizes its log-density at draws and at simulations."""
        log_w = terms.log_w(beta)
        log_q = terms.log_q()
        weights = log_w.detach().softmax(0)
        # the guide gets no gradient from its density within the weights
        surrogate = (weights * (log_w + (beta + 1 - self.sleep) * log_q)).sum(0)
        if self.sleep and torch.is_grad_enabled():
            surrogate = surrogate + self.sleep * terms.read(simulated_log_q)
        return with_gradient_of(log_mean_exp(log_w), surrogate)


def simulated_log_q(terms: Terms) -> Tensor:
    """Return the log-density under the guide of latents that the model samples together with data, ``(batch,)``."""
    with buffers_kept(terms.call):
        simulated = simulated_terms(terms.call)
    return sum(site.log_q for site in simulated.latent if site.local)[0]
