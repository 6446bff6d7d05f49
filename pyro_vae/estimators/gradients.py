"""Gradients that differ between the model, the path through the draws and the score of the guide."""

from __future__ import annotations

import torch
from pyro.distributions import Delta
from torch import Tensor

from pyro_vae.distributions import StratifiedNormalMixture
from pyro_vae.trace import Terms

__all__ = [
    "along_paths",
    "along_shared",
    "refuse_dependent",
    "refuse_points",
    "split_gradient",
    "spread",
    "with_gradient_of",
]


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return the value, with the gradient of another expression."""
    return value.detach() + (surrogate - surrogate.detach())


def split_gradient(
    terms: Terms, beta: float | Tensor, *, model: Tensor, path: Tensor, score: Tensor | None = None
) -> Tensor:
    r"""Return an expression whose gradient is a sum over particles, with a weight for each of its parts.

    .. math:: \sum_k \left( m_k \, \partial_\theta \log w_k
              + p_k \, \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}
              - s_k \, \beta \, \partial_\phi \log q_\phi(z_k) \right)

    The expression depends on nothing but its arguments: used twice, it has twice the gradient.

    Args:
        terms: one run of guide and model
        beta: weight of the divergence
        model: m, ``(particles, batch)``
        path: p, likewise
        score: s, likewise; no score if None
    """
    log_w = terms.log_w(beta, detached_params=True)
    surrogate = (model.detach() * log_w).sum(0) + along_paths(terms, log_w, path - model)
    if score is not None:
        surrogate = surrogate - (beta * score.detach() * terms.log_q(detached_draws=True)).sum(0)
    return surrogate


def along_paths(terms: Terms, log_w: Tensor, weights: Tensor) -> Tensor | float:
    r"""Return an expression with the gradient :math:`\sum_k v_k \, \partial_z \log w_k \, \partial_\phi z_k`.

    Args:
        terms: one run of guide and model
        log_w: what is differentiated with respect to the draws, ``(particles, batch)``
        weights: v, likewise; constants
    """
    draws = [(draw, name) for draw in terms.draws for name, (z, _) in draw.values.items() if z.requires_grad]
    if not draws or not log_w.requires_grad or not torch.is_grad_enabled():
        return 0.0
    values = [draw.values[name][0] for draw, name in draws]
    slopes = torch.autograd.grad(log_w.sum(), values, retain_graph=True, materialize_grads=True)
    total = 0.0
    for (draw, name), z, slope in zip(draws, values, slopes, strict=True):
        each = draw.rows(name, z * slope).sum(-1)
        total = total + (weights[draw.start : draw.stop].detach() * each).sum(0)
    return total


def along_shared(terms: Terms, log_w: Tensor, weights: Tensor) -> Tensor | float:
    r"""Return an expression with the gradient :math:`\sum_k v_k \, \partial_u \log w_k \, \partial_\phi u`.

    u are the draws that examples share. The gradient is that of the scaled sum over the batch.

    Args:
        terms: one run of guide and model
        log_w: what is differentiated with respect to the draws, ``(particles, batch)``
        weights: v, likewise; constants
    """
    shared = [u for draw in terms.draws for u, _ in draw.shared.values() if u.requires_grad]
    if not shared or not log_w.requires_grad or not torch.is_grad_enabled():
        return 0.0
    scale = torch.ones_like(weights[0]) * terms.sites[0].scale
    slopes = torch.autograd.grad(log_w, shared, scale * weights.detach(), retain_graph=True, materialize_grads=True)
    return spread(sum((u * slope).sum() for u, slope in zip(shared, slopes, strict=True)), scale)


def spread(total: Tensor, scale: Tensor) -> Tensor:
    """Return a number that has the given sum over the batch, once scaled for each example, ``(batch,)``."""
    return total / scale.sum().clamp_min(torch.finfo(scale.dtype).tiny)  # the weights of all examples may be 0


def refuse_dependent(terms: Terms, user: str) -> None:
    """Raise if the particles of an example are dependent, which biases an estimator for independent ones.

    Args:
        terms: one run of guide and model
        user: name of the estimator, for the message
    """
    for site in terms.latent:
        if terms.num_particles > 1 and isinstance(site.guide["fn"], StratifiedNormalMixture):
            raise ValueError(
                f"guide: {user} needs independent particles of site {site.name!r}, got those of a stratified mixture: "
                "use ELBO or IWAE, or a joint posterior with stratified=False"
            )


def refuse_points(terms: Terms, user: str) -> None:
    """Raise if the guide has a point estimate, whose score cannot be replaced by a gradient along paths.

    Args:
        terms: one run of guide and model
        user: name of the estimator, for the message
    """
    for site in terms.latent:
        if site.local and isinstance(site.guide["fn"], Delta) and terms.num_particles > 1:
            raise ValueError(
                f"guide: {user} needs a density of site {site.name!r}, got a Delta, which has none: use IWAE, or "
                "num_particles=1"
            )
