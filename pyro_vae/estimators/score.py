"""REINFORCE (score-function) gradients."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.trace import Terms

__all__ = ["score_surrogate"]


def score_surrogate(terms: Terms, beta: float | Tensor, signal: Tensor) -> Tensor:
    r"""Return an expression with the gradient of the bound, where a learning signal replaces :math:`\log w`.

    .. math:: \frac1K \sum_k \left( \nabla \log w_k + s_k \, \nabla_\phi \log q_\phi(z_k \mid x) \right)

    The score is that of sites without a reparameterized sampler. Its part in :math:`\nabla \log w`, which has mean
    zero, is left out.

    Args:
        terms: one run of guide and model
        beta: weight of the divergence
        signal: s, ``(particles, batch)``
    """
    return (terms.log_w(beta) + (beta + signal.detach()) * terms.log_q(unreparameterized=True)).mean(0)
