"""Reweighted wake-sleep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.estimators.score import ScoreFunction
from pyro_vae.trace.run import Detached, Record
from pyro_vae.trace.terms import Site, Terms

__all__ = ["ReweightedWakeSleep"]


class ReweightedWakeSleep(ScoreFunction):
    r"""The importance-weighted bound for the model, and the inclusive divergence for the guide.

    .. math:: \theta:\ \sum_k \tilde w_k \nabla_\theta \log p_\theta(x, z_k), \qquad
              \phi:\ (1 - s) \sum_k \tilde w_k \nabla_\phi \log q_\phi(z_k \mid x)
              + s\, \mathbb E_{p(x', z')}\left[\nabla_\phi \log q_\phi(z' \mid x')\right], \qquad
              \tilde w_k = \frac{w_k}{\sum_j w_j}

    The value is the bound of :class:`IWAE`, and the model follows it. The guide goes down
    :math:`\mathrm{KL}(p(z \mid x) \,\|\, q(z \mid x))`: awake at the data, with weights of each datum by itself,
    a gradient that is **biased** by order 1/K, and asleep at data that the model dreams, one for each datum of the
    batch, unbiased for the average over the model's own data. No gradient goes through a draw: any latents will do,
    and the signal of the guide does not fall with K.

    References:
        Reweighted wake-sleep (Bornschein and Bengio, 2015), https://arxiv.org/abs/1406.2751;
        Revisiting reweighted wake-sleep (Le et al., 2019), https://arxiv.org/abs/1805.10469

    Args:
        sleep: s, share of the dreams in the gradient of the guide: 0 is wake-wake, 1 wake-sleep
        num_particles: K, at least 2 unless the guide learns by dreams alone
        options: ``particles_per_pass``, ``beta`` and ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: a share outside of [0, 1]; a single particle, whose weight is always 1; and with ``sleep``, in the
            first step, a program whose data cannot be dreamed.

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

    record = Detached

    def __init__(self, *, sleep: float = 0.0, num_particles: int = 5, **options: Any) -> None:
        super().__init__(num_particles=num_particles, **options)
        if not 0 <= sleep <= 1:
            raise ValueError(f"sleep: expected a share between 0 and 1, got {sleep}")
        if num_particles < 2 and sleep < 1:
            raise ValueError(
                f"num_particles: ReweightedWakeSleep expects an int of at least 2, got {num_particles}: a single "
                "weight tells the guide nothing. Use more, or sleep=1"
            )
        self.sleep = sleep

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight; the guide follows its own log-density at the draws and at dreams."""
        log_w = terms.log_w(beta)
        log_q = sum(site.log_q for site in terms.latent)
        weights = log_w.detach().softmax(0)
        # the density of the guide within the weights has no say in its gradient
        surrogate = (weights * (log_w + (beta + 1 - self.sleep) * log_q)).sum(0)
        if self.sleep and torch.is_grad_enabled():
            surrogate = surrogate + self.sleep * dreamed_log_q(terms)
        return with_gradient_of(log_mean_exp(log_w), surrogate)


def dreamed_log_q(terms: Terms) -> Tensor:
    """Return the log-density under the guide of latents that the model draws together with data, (batch,)."""
    call = replace(terms.call, num_particles=1)
    x, *context = call.args
    with torch.no_grad():
        dream = call.trace(poutine.uncondition(call.model), Record())
    observed = {site.name: tuple(dream.sites[site.name]["value"].shape) for site in terms.observed}
    if list(observed.values()) != [tuple(x.shape)]:
        raise ValueError(
            "sleep: the guide is shown what the model draws in place of the data, so that the model must observe one "
            f"site of the shape of x, {tuple(x.shape)}; this one observes {observed}: use sleep=0"
        )
    dreamed = dream.sites[terms.observed[0].name]["value"]
    awake = replace(call, args=(dreamed, *context))
    drawn = awake.trace(call.guide, Record({**dream.sites, **dream.subsamples}))
    return sum(Site(site.name, drawn.sites[site.name], drawn.sites[site.name]).log_q for site in terms.latent)[0]
