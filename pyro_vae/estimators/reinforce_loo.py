"""REINFORCE with a leave-one-out baseline."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.estimators.downstream import downstream_loss, one_value_per_example
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.mean_over_particles import MeanOverParticles
from pyro_vae.estimators.score import leave_one_out, score_surrogate
from pyro_vae.trace import ScoredEverywhere, Terms

__all__ = ["ReinforceLOO"]


class ReinforceLOO(MeanOverParticles):
    r"""The evidence lower bound for discrete latents, by score functions with a leave-one-out baseline.

    .. math:: \nabla_\phi \, \mathbb E[\log w] = \mathbb E\left[\frac1K \sum_k
              \left(\log w_k - \frac{1}{K - 1} \sum_{j \neq k} \log w_j\right)
              \nabla_\phi \log q_\phi(z_k \mid x)\right]

    The other particles of the same example are a baseline that needs no network and does not depend on the draw: value
    and gradient are unbiased. Only sites without a reparameterized sampler have a score; the others keep the gradient
    through their draw, and rejection samplers have both.

    Any program is possible: discrete latents that all examples share, further plates (nested, crossed, with data of
    their own), no plate at all, sites with different scales. The signal of a draw then holds the terms of the loss
    that may depend on it, those of the same entries of its plates, minus their mean over the other particles.

    References:
        Buy 4 REINFORCE samples, get a baseline for free! (Kool et al., 2019), https://openreview.net/forum?id=r1lgTGL5DE;
        Gradient estimation using stochastic computation graphs (Schulman et al., 2015),
        https://arxiv.org/abs/1506.05254

    Args:
        num_particles: K, at least 2
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: fewer than two particles.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> ReinforceLOO().per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    draws = ScoredEverywhere

    def __init__(self, *, num_particles: int = 4, **options: Any) -> None:
        super().__init__(num_particles=check_int("num_particles", num_particles, 2), **options)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the mean log weight; the signal of each draw is its log weight minus the mean of the others."""
        log_w = terms.log_w(beta)
        return with_gradient_of(log_w.mean(0), score_surrogate(terms, beta, leave_one_out(log_w)))

    def check_plates(self, terms: Terms) -> None:
        """Accept data in several plates: the bound is a sum over sites."""

    def sites_loss(self, terms: Terms, beta: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics; where examples have sites in common, each score has a signal of its own."""
        if one_value_per_example(terms):
            return super().sites_loss(terms, beta)
        return downstream_loss(terms, lambda site: self.weight(site, beta), leave_one_out)
