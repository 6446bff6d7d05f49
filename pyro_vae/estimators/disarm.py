"""DisARM: antithetic gradients for Bernoulli latents."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.score import pathless_log_q
from pyro_vae.trace import Terms
from pyro_vae.trace.antithetic import Antithetic, pair_score, swap_pairs

__all__ = ["DisARM"]


class DisARM(Estimator):
    r"""The evidence lower bound for Bernoulli latents, by antithetic pairs of draws.

    .. math:: \nabla_{\alpha_i} \mathbb E[\log w] = \mathbb E\left[\tfrac12 \left(\log w - \log \tilde w\right)
              (b_i - \tilde b_i)\, \sigma(|\alpha_i|)\right], \qquad
              b_i = 1[u_i < \sigma(\alpha_i)], \quad \tilde b_i = 1[1 - u_i < \sigma(\alpha_i)]

    for the logits :math:`\alpha`. Neighbouring particles form a pair; several pairs are averaged. Value and gradient
    are unbiased, and the variance is below that of two independent draws with :class:`ReinforceLOO`. The guide must
    draw independent binary values given x: one layer, no latents of another kind.

    References:
        DisARM: an antithetic gradient estimator for binary latent variables (Dong et al., 2020),
        https://arxiv.org/abs/2006.10680

    Args:
        num_particles: an even number, two per pair
        options: ``particles_per_pass`` (also even), ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: an odd number of particles; in the first step, a site that is not Bernoulli, or that depends on
            another one.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> DisARM().per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    draws = Antithetic

    def __init__(self, *, num_particles: int = 2, **options: Any) -> None:
        super().__init__(num_particles=check_int("num_particles", num_particles, 2), **options)
        for name, value in (("num_particles", num_particles), ("particles_per_pass", self.particles_per_pass)):
            if value is not None and value % 2:
                raise ValueError(f"{name}: expected an even number, as DisARM draws pairs, got {value}")

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the mean log weight; the signal of a pair is the difference of its log weights."""
        log_w = terms.log_w(beta)
        signal = log_w.detach() - swap_pairs(log_w.detach(), -2)
        score = sum(site.read(pair_score) for site in terms.latent)
        # each particle of a pair contributes half, with opposite signs in both factors
        surrogate = log_w + beta * pathless_log_q(terms) + 0.5 * signal * score
        return with_gradient_of(log_w.mean(0), surrogate.mean(0))
