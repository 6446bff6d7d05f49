"""Gradients that differ between the model, the draws and the guide's own score."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.trace.terms import Terms

__all__ = ["split_gradient", "with_gradient_of"]


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return the value, with the gradient of another expression."""
    return value.detach() + (surrogate - surrogate.detach())


def split_gradient(
    terms: Terms, beta: float | Tensor, *, model: Tensor, path: Tensor, score: Tensor | None = None
) -> Tensor:
    r"""Return an expression whose gradient is a sum over particles with a weight for each way it takes.

    .. math:: \sum_k \left( m_k \, \partial_\theta \log w_k
              + p_k \, \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}
              - s_k \, \partial_\phi \log q_\phi(z_k) \right)

    One backward pass: the draws have a hook that turns the weight of the model into theirs.

    Args:
        terms: a run with ``held=True``
        beta: weight of the divergence
        model: m, (particles, batch)
        path: p
        score: s, none of it if None
    """
    # where a weight underflows the ratio below must not divide by zero
    model = model.detach().clamp(min=1e-18)
    for draw in terms.draws:
        draw.weigh(path / model)
    held = terms.log_w(beta, held=True)
    surrogate = (model * held).sum(0)
    if score is not None:
        # the draws cancel in the difference: what is left is minus the log-density at fixed draws
        surrogate = surrogate + (score.detach() * (terms.log_w(beta) - held)).sum(0)
    return surrogate
