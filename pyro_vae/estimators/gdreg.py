"""Generalized doubly reparameterized gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import refuse_dependent, refuse_points, with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Draw, Recorder, Terms
from pyro_vae.trace.call import buffers_kept
from pyro_vae.trace.divergence import factors

__all__ = ["GDReG"]


class GDReG(Estimator):
    r"""The importance-weighted bound, with doubly reparameterized gradients of the prior as well as of the guide.

    .. math:: \nabla_\theta^{\text{prior}} = \mathbb E\left[\sum_k \left(
              \tilde w_k \, \frac{\partial \log p(x \mid z_k)}{\partial z_k}
              - \tilde w_k^2 \, \frac{\partial \log w_k}{\partial z_k} \right)
              \frac{\partial T_\theta(\epsilon_k)}{\partial \theta} \right], \qquad z_k = T_\theta(\epsilon_k)

    For the guide it is :class:`DReG`. For a learned prior, all layers of a hierarchy at once, a draw of the guide is
    read as a draw of the prior, from the noise :math:`\epsilon_k` that gives the same value. Unbiased. The prior of
    each latent site must be a product of Normal, Laplace or other distributions with a location and a scale.

    References:
        Generalized doubly reparameterized gradient estimators (Bauer and Mnih, 2021),
        https://arxiv.org/abs/2101.11046

    Args:
        num_particles: K
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: in the first step, for a prior that has other parameters than a location and a scale.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> GDReG().differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([])
    """

    def __init__(self, *, num_particles: int = 5, **options: Any) -> None:
        super().__init__(num_particles=num_particles, **options)

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise if a prior has other parameters than a location and a scale."""
        super().check_terms(terms, recorder)
        refuse_points(terms, "GDReG")
        refuse_dependent(terms, "GDReG")
        for site in terms.split()[0].latent:
            if site.marginal is not None:
                raise ValueError(
                    f"prior: GDReG needs a family with a location and a scale at site {site.name!r}, got a sum over "
                    "values of the model: use DReG"
                )
            location_scale(site.model["fn"], site.name)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight; likelihood, guide and prior each have a gradient of their own."""
        log_w = terms.log_w(beta)
        value = log_mean_exp(log_w)
        if not (torch.is_grad_enabled() and log_w.requires_grad):
            return value
        w = log_w.detach().softmax(0)
        log_likelihood = sum((site.log_p for site in terms.observed), torch.zeros_like(log_w))
        surrogate = (w * log_likelihood).sum(0)
        places = [
            (draw, prior, name)
            for draw, prior in ((draw, as_prior_draws(terms, draw)) for draw in terms.draws)
            for name, (z, _) in draw.values.items()
            if z.requires_grad
        ]
        if not places:
            return value
        z = [draw.values[name][0] for draw, _, name in places]
        by_weight, by_likelihood = (slopes(v, z) for v in (terms.log_w(beta, detached_params=True), log_likelihood))
        for (draw, prior, name), g_w, g_x in zip(places, by_weight, by_likelihood, strict=True):
            g_w, g_x = draw.rows(name, g_w), draw.rows(name, g_x)
            share = w[draw.start : draw.stop].unsqueeze(-1)
            # the likelihood brings share * g_x to the draw already
            guide = draw.rows(name) * (share * (1 - beta * (1 - share)) * g_w - share * g_x)
            other = draw.rows(name, prior[name]) * (beta * share * (1 - share) * g_w + share * (g_x - g_w))
            surrogate = surrogate + (guide + other).sum((0, -1))
        return with_gradient_of(value, surrogate)


def slopes(value: Tensor, z: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the gradients of a sum with respect to the draws, 0 where it does not depend on them."""
    if not value.requires_grad:
        return [torch.zeros_like(each) for each in z]
    return torch.autograd.grad(value.sum(), z, retain_graph=True, materialize_grads=True)


def as_prior_draws(terms: Terms, draw: Draw) -> dict[str, Tensor]:
    """Return the draws as functions of the prior's parameters, from the noise that gives the same values."""
    call = replace(terms.call, num_particles=draw.stop - draw.start)
    again = FromNoise({name: value.detach() for name, (value, _) in draw.values.items()}, draw.shared)
    try:
        with buffers_kept(call):
            call.trace(call.model, again)
    except AllDrawn:
        pass
    return again.made


class AllDrawn(Exception):
    """Every latent site has been drawn: the rest of the model is not needed."""


class FromNoise(Recorder):
    """Draw each latent of the model from the noise that gives its value."""

    def __init__(self, values: dict[str, Tensor], shared: dict[str, tuple[Tensor, Any]]) -> None:
        super().__init__({name: {"value": value} for name, (value, _) in shared.items()})
        self.given = values
        self.made: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.given and not msg["is_observed"]:
            base = location_scale(msg["fn"], msg["name"])
            noise = ((self.given[msg["name"]] - base.loc) / base.scale).detach()
            msg["done"], msg["value"] = True, base.loc + base.scale * noise
        else:
            super()._pyro_sample(msg)

    def _pyro_post_sample(self, msg: Any) -> None:
        super()._pyro_post_sample(msg)
        if msg["name"] in self.given:
            self.made[msg["name"]] = msg["value"]
            if len(self.made) == len(self.given):
                raise AllDrawn


def location_scale(fn: Any, name: str) -> Any:
    """Return the distribution of one entry, whose only parameters must be a location and a scale."""
    base = factors(fn)
    if base is None or set(base.arg_constraints) != {"loc", "scale"} or base.support is not constraints.real:
        raise ValueError(
            f"prior: GDReG needs a family with a location and a scale at site {name!r}, got "
            f"{type(getattr(fn, 'base_dist', fn)).__name__}: use DReG, or a prior such as Normal"
        )
    return base
