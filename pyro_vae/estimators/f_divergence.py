"""The evidence minus any f-divergence from the posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyro_vae._util.validation import check_int
from pyro_vae.estimators.averages import mean
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Terms

__all__ = ["FDivergence", "chi_square", "forward_kl", "jensen_shannon", "reverse_kl", "total_variation"]


def reverse_kl(log_ratio: Tensor) -> Tensor:
    r"""Return :math:`f(r) = -\log r`, of :math:`\mathrm{KL}(q \,\|\, p)`, which seeks one mode.

    Args:
        log_ratio: log r, any shape

    Returns:
        f(r), of the same shape.

    Example:
        >>> reverse_kl(torch.tensor(2.0))
        tensor(-2.)
    """
    return -log_ratio


def forward_kl(log_ratio: Tensor) -> Tensor:
    r"""Return :math:`f(r) = r \log r`, of :math:`\mathrm{KL}(p \,\|\, q)`, which covers all modes.

    Args:
        log_ratio: log r, any shape

    Returns:
        f(r), of the same shape.

    Example:
        >>> forward_kl(torch.tensor(0.0))
        tensor(0.)
    """
    log_ratio = log_ratio.clamp_min(-80.0)  # a weight of 0
    return log_ratio.exp() * log_ratio


def chi_square(log_ratio: Tensor) -> Tensor:
    r"""Return :math:`f(r) = (r - 1)^2`, of :math:`\chi^2(p \,\|\, q)`, the variance of the importance weights.

    Args:
        log_ratio: log r, any shape

    Returns:
        f(r), of the same shape.

    Example:
        >>> chi_square(torch.tensor(0.0))
        tensor(0.)
    """
    return torch.expm1(log_ratio).square()


def jensen_shannon(log_ratio: Tensor) -> Tensor:
    r"""Return :math:`f(r) = \tfrac12 \left(r \log r - (r + 1) \log \tfrac{r + 1}{2}\right)`, symmetric, at most log 2.

    Args:
        log_ratio: log r, any shape

    Returns:
        f(r), of the same shape.

    Example:
        >>> jensen_shannon(torch.tensor(0.0))
        tensor(0.)
    """
    log_ratio = log_ratio.clamp_min(-80.0)  # a weight of 0
    middle = softplus(log_ratio) - math.log(2)
    return 0.5 * (log_ratio.exp() * (log_ratio - middle) - middle)


def total_variation(log_ratio: Tensor) -> Tensor:
    r"""Return :math:`f(r) = \tfrac12 \lvert r - 1 \rvert`, the largest difference of two probabilities, at most 1.

    Args:
        log_ratio: log r, any shape

    Returns:
        f(r), of the same shape.

    Example:
        >>> total_variation(torch.tensor(0.0))
        tensor(0.)
    """
    return 0.5 * torch.expm1(log_ratio).abs()


class FDivergence(Estimator):
    r"""The evidence minus an f-divergence of the guide from the posterior (the Csiszár family).

    .. math:: L_f = \log p(x) - \mathbb E_{q(z \mid x)}\left[f\left(\frac{p(z \mid x)}{q(z \mid x)}\right)\right]
              \approx \log \bar w - \frac1K \sum_k f\left(\frac{w_k}{\bar w}\right), \qquad
              \bar w = \frac1K \sum_k w_k

    for a convex f with f(1) = 0, a function of the log ratio: :func:`reverse_kl` (the ELBO), :func:`forward_kl`,
    :func:`chi_square`, :func:`jensen_shannon`, :func:`total_variation`, or your own. The divergence is at least 0,
    for a finite K as well, so that the value is a **lower bound** on the evidence, below :class:`IWAE`. A finite K
    makes the divergence too small: a **bias** of order 1/K, except for :func:`reverse_kl`. The gradient is that of the
    value, along the draws. Jensen-Shannon and total variation are bounded, and give a guide far from the posterior
    hardly any gradient.

    References:
        A general class of coefficients of divergence of one distribution from another (Ali and Silvey, 1966),
        https://doi.org/10.1111/j.2517-6161.1966.tb00626.x;
        Operator variational inference (Ranganath et al., 2016), https://arxiv.org/abs/1610.09033

    Args:
        f: from log ratios to f, elementwise
        num_particles: K, at least 2, as the ratio of a single weight to the mean is 1
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: fewer than two particles.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> estimator = FDivergence(f=pv.estimators.forward_kl)
        >>> estimator.per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(
        self, *, f: Callable[[Tensor], Tensor] = jensen_shannon, num_particles: int = 20, **options: Any
    ) -> None:
        super().__init__(num_particles=check_int("num_particles", num_particles, 2), **options)
        self.f = f

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the estimated evidence minus the estimated divergence of each example."""
        log_w = terms.log_ratio(beta)
        log_evidence = log_mean_exp(terms.log_expect(log_w))
        return log_evidence - mean(terms.expect(self.f(log_w - log_evidence)))
