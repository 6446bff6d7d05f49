"""Reweighted wake-sleep."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int, check_number
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Call, Detached, Terms
from pyro_vae.trace.call import buffers_kept
from pyro_vae.trace.defensive import defensive_terms
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

    A **defensive** share d of the prior in the proposal,

    .. math:: z_k \sim m(z) = (1 - d)\, q_\phi(z \mid x) + d\, p_\theta(z), \qquad
              w_k = \frac{p_\theta(x, z_k)}{m(z_k)},

    bounds each weight by :math:`p(x \mid z_k) / d`, so that a guide which leaves out a mode finds it again. The value
    is the importance-weighted bound with the proposal m, still a lower bound, and the weights stay consistent; the
    draws of the sleep phase are as before. It takes one further run of the model.

    References:
        Reweighted wake-sleep (Bornschein and Bengio, 2015), https://arxiv.org/abs/1406.2751;
        Revisiting reweighted wake-sleep (Le et al., 2019), https://arxiv.org/abs/1805.10469

    Args:
        sleep: s, share of the sleep phase in the gradient of the guide: 0 is wake-wake, 1 wake-sleep
        defensive: d, share of the prior in the proposal, in [0, 1)
        num_particles: K, at least 2 unless the guide learns in the sleep phase alone
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: a share out of its range; a single particle, whose weight is always 1; ``defensive`` together with
            ``particles_per_pass``, free bits or a capacity; in the first step, with ``sleep``, a program whose data
            cannot be simulated, and with ``defensive``, a guide or prior without a density of each latent.

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

    def __init__(self, *, sleep: float = 0.0, defensive: float = 0.0, num_particles: int = 5, **options: Any) -> None:
        sleep = check_number("sleep", sleep, 0, 1)
        # the normalized weight of a single particle is 1 and carries no signal for the guide
        num_particles = check_int("num_particles", num_particles, 2 if sleep < 1 else 1)
        super().__init__(num_particles=num_particles, **options)
        self.sleep, self.defensive = sleep, check_number("defensive", defensive, 0, below=1)
        if self.defensive:
            used = {
                "particles_per_pass": self.particles_per_pass is not None,
                "free_bits": self.free_bits.nats > 0,
                "capacity": self.capacity is not None,
            }
            for name in (name for name, given in used.items() if given):
                raise ValueError(
                    f"{name}: expected none together with defensive={defensive}, whose draws are not those of the "
                    "guide: leave one of them out"
                )

    def terms_for(self, formula: Callable[[Terms], Any], call: Call) -> Terms:
        """Return the terms of a call, at draws from the proposal."""
        if not self.defensive:
            return super().terms_for(formula, call)
        terms = defensive_terms(call, self.defensive)
        self.check_terms(terms, Detached())
        return terms

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight; the guide maximizes its log-density at draws and at simulations."""
        log_w, log_q = terms.log_w(beta), terms.log_q()
        log_joint = log_w + beta * log_q
        if self.defensive:
            log_p = sum(site.log_p for site in terms.latent)
            proposal = torch.logaddexp(log_q + math.log1p(-self.defensive), log_p + math.log(self.defensive))
            log_w = log_joint - beta * proposal
        # the guide gets no gradient from its density within the weights
        surrogate = (log_w.detach().softmax(0) * (log_joint + (1 - self.sleep) * log_q)).sum(0)
        if self.sleep and torch.is_grad_enabled():
            surrogate = surrogate + self.sleep * terms.read(simulated_log_q)
        return with_gradient_of(log_mean_exp(log_w), surrogate)

    def local_loss(self, terms: Terms, beta: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics: none of the guide's reconstruction and divergence at draws of a mixture."""
        loss, metrics = super().local_loss(terms, beta)
        return loss, {} if self.defensive else metrics


def simulated_log_q(terms: Terms) -> Tensor:
    """Return the log-density under the guide of latents that the model samples together with data, ``(batch,)``."""
    with buffers_kept(terms.call):
        simulated = simulated_terms(terms.call)
    return sum(site.log_q for site in simulated.latent if site.local)[0]
