"""FIVO: the bound of a particle filter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Call, Recorder, Resampled, Terms
from pyro_vae.trace.passes import run_in_passes
from pyro_vae.trace.resampled import Resampling, has_steps, log_p_of_steps

__all__ = ["FIVO"]


class FIVO(Estimator):
    r"""The bound of a particle filter with K particles, for sequences: a filtering variational objective.

    .. math:: \log p(x_{1:T}) \ge \mathbb E \left[\log \hat p\right], \qquad
              \hat p = \prod_{t=1}^T \sum_{k=1}^K W_{t-1}^k w_t^k, \qquad
              w_t^k = p(x_t \mid z_t^k) \left( \frac{p(z_t^k \mid z_{t-1}^{a_k})}
                      {q(z_t^k \mid z_{t-1}^{a_k}, x)} \right)^\beta

    Before a step, the particles of an example whose effective sample size :math:`1 / \sum_k (W^k)^2` is at most
    ``threshold`` times K are replaced by K draws of them by their weights W (multinomial resampling), and continue
    with equal weights. :math:`\hat p` is an unbiased estimate of the evidence. Its variance grows linearly with T,
    that of :class:`IWAE` exponentially, which the bound is with ``threshold=0``.

    The gradient is biased, as published: that of the weights and of the draws, without the score function of the
    ancestors. With ``unbiased_gradient=True`` it is

    .. math:: \nabla \mathbb E[\log \hat p] = \mathbb E\Big[\nabla \log \hat p + \sum_{t=2}^T \sum_{k=1}^K
              \log \frac{\hat p_{1:T}}{\hat p_{1:t-1}} \nabla \log W_{t-1}^{a_t^k}\Big],

    of a much larger variance. A threshold below 1, which weights cross as parameters change, has no gradient and is
    refused.

    The program announces its steps by :func:`pyro_vae.programs.resample`, as ``SequenceVAE`` does. Padding and missing
    entries have no weight. Particles are chosen by the data so far: where the guide knows later steps (`BackwardGRU`)
    and is close to the posterior, resampling loses, and the exact guide has a constant weight only without it.

    References:
        Filtering variational objectives (Maddison et al., 2017), https://arxiv.org/abs/1705.09279;
        Auto-encoding sequential Monte Carlo (Le et al., 2018), https://arxiv.org/abs/1705.10306;
        Variational sequential Monte Carlo (Naesseth et al., 2018), https://arxiv.org/abs/1705.11140

    Args:
        num_particles: K
        threshold: share of K, from 0 (particles are never resampled) to 1 (before each step); 0.5 by default, 1 with
            an unbiased gradient
        unbiased_gradient: add the score function of the ancestors to the gradient
        options: ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: a threshold outside of [0, 1]; below 1 together with ``unbiased_gradient``; ``particles_per_pass``,
            as resampling needs all particles at once; in a run, a program that does not announce steps, or with
            further latents of an example.

    Example:
        >>> import torch, pyro_vae as pv
        >>> program, x = pv.programs.SequenceVAE.example(), torch.randn(5, 3, 4)
        >>> FIVO(num_particles=4).per_datum(program.model, program.guide, x).shape
        torch.Size([5])
    """

    draws = Resampled

    def __init__(
        self,
        *,
        num_particles: int = 5,
        threshold: float | None = None,
        unbiased_gradient: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(num_particles=num_particles, **options)
        self.unbiased_gradient = unbiased_gradient
        if threshold is None:
            threshold = 1.0 if unbiased_gradient else 0.5
        self.threshold = check_number("threshold", threshold, 0.0, 1.0)
        if unbiased_gradient and threshold < 1:
            raise ValueError(
                f"threshold: expected 1 with unbiased_gradient=True, got {threshold}: a threshold that weights cross "
                "as parameters change has no gradient. Pass threshold=1, or leave unbiased_gradient out"
            )
        if self.particles_per_pass is not None:
            raise ValueError(
                f"particles_per_pass: expected None, as {type(self).__name__} resamples all particles together, got "
                f"{self.particles_per_pass}: leave it out, or use fewer particles or a smaller batch"
            )

    def terms_for(self, formula: Callable[[Terms], Any], call: Call) -> Terms:
        """Return the terms of a call, whose particles are resampled."""
        return run_in_passes(call, partial(Resampled, threshold=self.threshold), self.check_terms, formula, None)

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise if the program does not announce steps, or if a site of an example belongs to none."""
        super().check_terms(terms, recorder)
        local, name = terms.split()[0], type(self).__name__
        for site in local.latent:
            if "resampling" not in site.guide or site.enumerated:
                raise ValueError(
                    f"program: {name} resamples particles between the steps of a sequence, but site {site.name!r} is "
                    "not a draw of such a step: use IWAE, a SequenceVAE, or announce steps by "
                    "pyro_vae.programs.resample"
                )
        for site in local.observed:
            if not (local.latent and has_steps(site, len(local.latent))):
                raise ValueError(
                    f"program: {name} needs the density of each of {len(local.latent)} steps, but site {site.name!r} "
                    "does not declare them as the first dimension of its event: use .to_event, or IWAE"
                )

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the estimated evidence of each example."""
        *earlier, last = log_weights(terms, beta)
        value = log_mean_exp(last)
        if not self.unbiased_gradient or self.num_particles == 1:
            return value
        surrogate = value
        # ancestors are drawn by the weights without beta
        for site, log_w, drawn_by in zip(terms.latent[1:], earlier, log_weights(terms, 1.0), strict=False):
            resampling = site.guide["resampling"]
            signal = (value - log_mean_exp(log_w)).detach() * resampling.resampled
            surrogate = surrogate + signal * resampling.select(drawn_by.log_softmax(0)).sum(0)
        return with_gradient_of(value, surrogate)


def log_weights(terms: Terms, beta: float | Tensor) -> list[Tensor]:
    """Return the log-weights of the particles after each step, ``(particles, batch)``; their mean is the evidence."""
    observed = sum(site.read(log_p_of_steps) for site in terms.observed)
    found: list[Tensor] = []
    for t, site in enumerate(terms.latent):
        log_w = beta * (site.log_p - site.log_q) + observed[..., t]
        if found:
            resampling = site.guide["resampling"]
            log_w = log_w + (found[-1] if resampling is None else resampled(found[-1], resampling))
        found.append(log_w)
    return found


def resampled(log_w: Tensor, resampling: Resampling) -> Tensor:
    """Return the log-weights after a resampling: their mean, which a particle leaves where it was drawn by others."""
    mean = log_mean_exp(log_w)
    # such as those with beta, or of a likelihood with a scale that is fitted to the batch
    off = resampling.select(log_w - resampling.log_w) - (mean - log_mean_exp(resampling.log_w))
    return torch.where(resampling.resampled, mean + off.detach(), log_w)
