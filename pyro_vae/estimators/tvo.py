"""The thermodynamic variational objective."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.cache import cached_tensors
from pyro_vae._util.validation import check_int, check_number
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.trace import Detached, Terms

__all__ = ["TVO"]


class TVO(Estimator):
    r"""The thermodynamic variational objective: a left Riemann sum under the curve whose area is the evidence.

    .. math:: \log p(x) = \int_0^1 \mathbb E_{\pi_b}[\log w] \, db \ge
              \sum_{j=0}^{J-1} (b_{j+1} - b_j)\, \mathbb E_{\pi_{b_j}}[\log w], \qquad
              \pi_b(z) \propto q(z \mid x)^{1 - b}\, p(x, z)^{b}

    With one interval it is the ELBO. The expectations under :math:`\pi_b` are estimated by importance sampling with
    self-normalized weights :math:`w^b`, so that value and gradient are **biased** for a finite number of particles K
    (by order 1/K, towards the ELBO). The gradient,
    :math:`\mathbb E_{\pi_b}[\nabla \log w] + \operatorname{Cov}_{\pi_b}(\log w, \nabla \log \tilde\pi_b)`, needs no
    gradient through a draw, so that latents may be discrete.

    References:
        The thermodynamic variational objective (Masrani et al., 2019), https://arxiv.org/abs/1907.00031

    Args:
        num_intervals: J
        first: :math:`b_1`; the points from there to 1 are equally spaced in the logarithm
        num_particles: K
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: fewer than one interval, or a first point outside of (0, 1).

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> TVO().per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    draws = Detached

    def __init__(
        self, *, num_intervals: int = 5, first: float = 0.025, num_particles: int = 20, **options: Any
    ) -> None:
        super().__init__(num_particles=num_particles, **options)
        num_intervals = check_int("num_intervals", num_intervals)
        first = check_number("first", first, above=0, below=1)
        points = torch.logspace(math.log10(first), 0, num_intervals, dtype=torch.float64)
        self.points = [0.0, *points.tolist()] if num_intervals > 1 else [0.0, 1.0]

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the Riemann sum of each example."""
        log_w = terms.log_w(beta)
        log_q = terms.log_q()
        # one row per point: (points, particles, batch)
        points = numbers(tuple(self.points), log_w.device).to(log_w.dtype)
        left, width = points[:-1, None, None], points[:, None].diff(dim=0)
        fixed = log_w.detach()
        weights = (left * fixed).softmax(1)
        means = (weights * fixed).sum(1)
        centred = weights * (fixed - means.unsqueeze(1))
        # a row of `centred` sums to zero, so that the normalizer of pi drops out
        surrogate = (weights * log_w + centred * (log_q + left * log_w)).sum(1)
        return with_gradient_of((width * means).sum(0), (width * surrogate).sum(0))


@cached_tensors
def numbers(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers as a tensor in double precision."""
    return torch.tensor(values, dtype=torch.float64, device=device)
