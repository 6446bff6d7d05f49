"""REINFORCE (score-function) gradients."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Terms
from pyro_vae.trace.terms import refuse_enumerated

__all__ = ["importance_weighted_scores", "leave_one_out", "pathless_log_q", "score_surrogate"]


def score_surrogate(terms: Terms, beta: float | Tensor, signal: Tensor) -> Tensor:
    r"""Return an expression with the gradient of the bound, where a learning signal replaces :math:`\log w`.

    .. math:: \frac1K \sum_k \left( \nabla \log w_k + s_k \, \nabla_\phi \log q_\phi(z_k \mid x) \right)

    The score is that of sites without a reparameterized sampler. Its part in :math:`\nabla \log w`, which has mean
    zero, is left out. Rejection samplers, whose draws carry a part of the gradient, have both.

    Args:
        terms: one run of guide and model
        beta: weight of the divergence
        signal: s, ``(particles, batch)``
    """
    refuse_enumerated(terms.latent, "a score function")
    surrogate, signal = terms.log_w(beta), signal.detach()
    weight = beta + signal
    for site in terms.latent:
        if site.reparameterized:
            continue
        score = site.score_function
        if score is site.log_q:  # the usual case, for speed
            surrogate = surrogate + weight * score
        else:
            surrogate = surrogate + signal * score + (0.0 if site.has_path else beta * site.log_q)
    return surrogate.mean(0)


def importance_weighted_scores(terms: Terms, beta: float | Tensor, baselines: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the log of the mean weight, where the score of each particle has the bound minus its baseline as signal.

    Args:
        terms: one run of guide and model
        beta: weight of the divergence
        baselines: from log weights ``(particles, batch)`` to one baseline each, which does not depend on its own draw
    """
    log_w = terms.log_w(beta)
    value = log_mean_exp(log_w)
    signal = value.detach() - baselines(log_w.detach())
    return with_gradient_of(value, value + (signal * terms.score_function()).sum(0))


def pathless_log_q(terms: Terms) -> Tensor | float:
    """Return the log-density under the guide of the latents whose draws carry no gradient, ``(particles, batch)``."""
    return sum(site.log_q for site in terms.latent if not site.has_path)


def leave_one_out(cost: Tensor) -> Tensor:
    """Return each entry minus the mean of the other particles, whose dimension is the last but one."""
    k = cost.shape[-2]
    # written with the mean of all
    return (cost - cost.mean(-2, keepdim=True)) * (k / (k - 1))
