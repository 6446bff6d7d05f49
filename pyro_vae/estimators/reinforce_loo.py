"""REINFORCE with a leave-one-out baseline."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.score import score_surrogate
from pyro_vae.trace import Scored, Terms

__all__ = ["ReinforceLOO"]


class ReinforceLOO(Estimator):
    r"""The evidence lower bound for discrete latents, by score functions with a leave-one-out baseline.

    .. math:: \nabla_\phi \, \mathbb E[\log w] = \mathbb E\left[\frac1K \sum_k
              \left(\log w_k - \frac{1}{K - 1} \sum_{j \neq k} \log w_j\right)
              \nabla_\phi \log q_\phi(z_k \mid x)\right]

    The other particles of the same example are a baseline that needs no network and does not depend on the draw: value
    and gradient are unbiased. Only sites without a reparameterized sampler have a score; the others keep the gradient
    through their draw.

    References:
        Buy 4 REINFORCE samples, get a baseline for free! (Kool et al., 2019), https://openreview.net/forum?id=r1lgTGL5DE

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

    draws = Scored

    def __init__(self, *, num_particles: int = 4, **options: Any) -> None:
        super().__init__(num_particles=check_int("num_particles", num_particles, 2), **options)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the mean log weight; the signal of each draw is its log weight minus the mean of the others."""
        log_w = terms.log_w(beta)
        k = log_w.shape[0]
        # log w minus the mean of the others, written with the mean of all
        signal = (log_w - log_w.mean(0)) * (k / (k - 1))
        return with_gradient_of(log_w.mean(0), score_surrogate(terms, beta, signal))
