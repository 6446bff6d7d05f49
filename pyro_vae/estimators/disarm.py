"""Antithetic pairs of Bernoulli draws."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import Bernoulli, Independent

from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.score import ScoreFunction, log_score
from pyro_vae.trace.run import Record
from pyro_vae.trace.terms import Site, Terms, masked, particle_dim, per_datum

__all__ = ["DisARM"]


class Antithetic(Record):
    """Draw Bernoulli sites in pairs of particles, one from a uniform number u and one from 1 - u."""

    def __init__(self, replay: dict[str, Any] | None = None) -> None:
        super().__init__(replay)
        self.shapes: dict[str, torch.Size] = {}

    def _pyro_sample(self, msg: Any) -> None:
        # the plate over particles has not expanded the distribution yet
        self.shapes[msg["name"]] = getattr(msg["fn"], "batch_shape", torch.Size())
        super()._pyro_sample(msg)

    def _pyro_post_sample(self, msg: Any) -> None:
        # what data share has no particles
        if particle_dim(msg) is not None and type(msg["fn"]) is not _Subsample and not msg["is_observed"]:
            self.check(msg)
            msg["value"] = pairs(msg)
        super()._pyro_post_sample(msg)

    def check(self, msg: Any) -> None:
        """Refuse what no pair can be drawn of."""
        base = bernoulli(msg["fn"])
        if not isinstance(base, Bernoulli) or base.has_rsample:
            family = type(getattr(base, "base_dist", base)).__name__
            raise ValueError(
                f"DisARM draws pairs of bits, but the guide draws site {msg['name']!r} from {family}: use a Bernoulli "
                "posterior, or another estimator, such as VIMCO or ReinforceLOO"
            )
        shape, dim = self.shapes[msg["name"]], particle_dim(msg)
        if len(shape) >= -dim and shape[dim] > 1:
            raise ValueError(
                f"DisARM has one layer of bits, but in the guide site {msg['name']!r} depends on an earlier draw: use "
                "VIMCO or ReinforceLOO"
            )


class DisARM(ScoreFunction):
    r"""The evidence lower bound for Bernoulli latents, by antithetic pairs of draws.

    .. math:: \nabla_{\alpha_i} \mathbb E[\log w] = \mathbb E\left[\tfrac12 \left(\log w - \log \tilde w\right)
              (b_i - \tilde b_i)\, \sigma(|\alpha_i|)\right], \qquad
              b_i = 1[u_i < \sigma(\alpha_i)], \quad \tilde b_i = 1[1 - u_i < \sigma(\alpha_i)]

    for the logits :math:`\alpha`. Neighbouring particles are a pair; several pairs are averaged. Value and gradient
    are unbiased, the variance is below that of two independent draws with :class:`ReinforceLOO`. The guide must draw
    independent bits given x: one layer, no latents of another kind.

    References:
        DisARM: an antithetic gradient estimator for binary latent variables (Dong et al., 2020),
        https://arxiv.org/abs/2006.10680

    Args:
        num_particles: an even number, two a pair
        options: ``particles_per_pass`` (even as well), ``beta`` and ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: an odd number of particles; in the first step, a site that is no Bernoulli, or that depends on
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

    record = Antithetic
    fewest = 2
    quantities = ("pair_score",)

    def __init__(self, *, num_particles: int = 2, **options: Any) -> None:
        super().__init__(num_particles=num_particles, **options)
        for name, value in (("num_particles", num_particles), ("particles_per_pass", self.particles_per_pass)):
            if value is not None and value % 2:
                raise ValueError(f"{name}: DisARM draws pairs and expects an even number, got {value}")

    def one_pass(self, *args: Any, **kwargs: Any) -> Terms:
        """Run guide and model with so many particles."""
        terms = super().one_pass(*args, **kwargs)
        for site in terms.latent:
            site.pair_score = pair_score(site) if site.local else None
        return terms

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the mean log weight; the signal of a pair is the difference of its weights."""
        log_w = terms.log_w(beta)
        signal = log_w.detach() - swapped(log_w.detach(), -2)
        score = sum(site.pair_score for site in terms.latent)
        # each of the two particles of a pair holds half of it, with opposite signs on both factors
        surrogate = log_w + beta * log_score(terms) + 0.5 * signal * score
        return with_gradient_of(log_w.mean(0), surrogate.mean(0))


def bernoulli(fn: Any) -> Any:
    """Return the distribution of a single bit."""
    return fn.base_dist if isinstance(fn, Independent) else fn


def pairs(msg: Any) -> Tensor:
    """Draw the values of a site anew, in pairs along its particles."""
    dim = particle_dim(msg) - msg["fn"].event_dim
    probs = bernoulli(msg["fn"]).probs.detach()
    first = probs.unflatten(dim, (-1, 2)).select(dim, 0)
    u = torch.rand_like(first)
    return torch.stack([u < first, 1 - u < first], dim).flatten(dim - 1, dim).to(probs.dtype)


def pair_score(site: Site) -> Tensor:
    r"""Return the sum of :math:`(b_i - \tilde b_i)\, \sigma(|\alpha_i|)\, \alpha_i`, the first two factors held."""
    fn, value = site.guide["fn"], site.guide["value"]
    logits = bernoulli(fn).logits
    differs = value - swapped(value, particle_dim(site.guide) - fn.event_dim)
    score = differs * logits.detach().abs().sigmoid() * logits
    score = score.reshape(*score.shape[: score.dim() - fn.event_dim], -1).sum(-1)
    return per_datum(site.guide, masked(site.guide, score))


def swapped(x: Tensor, dim: int) -> Tensor:
    """Return for each particle what its partner has, where ``dim`` counts particles from the right."""
    return x.unflatten(dim, (-1, 2)).flip(dim).flatten(dim - 1, dim)
