"""Log-densities and log-gamma functions written so that large terms do not cancel."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = [
    "OUTSIDE",
    "deviance",
    "digamma_difference",
    "factorial_remainder",
    "log_gamma_ratio",
    "log_interval",
    "log_outside",
    "log_poisson",
    "log_sum_exp",
    "mean_between",
]

#: Steps of the recurrence after which the asymptotic series is accurate to float64 rounding.
RECURRENCE_STEPS = 10

#: Gauss-Legendre nodes and weights for integrals over [-1, 1].
NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)

#: Mass of a truncated distribution outside its range.
OUTSIDE = 2.0**-30


def factorial_remainder(x: Tensor) -> Tensor:
    r"""Return :math:`g(x) = \log \Gamma(x + 1) - x \log x + x`, which is 0 at 0 and grows like half a logarithm.

    A difference of log-gamma functions of size 1e10 has no correct digit left in float32. Densities written in g
    never compute the large terms.
    """
    large = x > 8
    wide = torch.where(large, x, 8.0)
    inverse = 1 / wide
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    empty = x <= 0
    small = torch.where(large | empty, 1.0, x)
    direct = torch.lgamma(small + 1) - small * small.log() + small
    return torch.where(large, 0.5 * torch.log(2 * math.pi * wide) + series, torch.where(empty, 0.0, direct))


def deviance(x: Tensor, mean: Tensor, difference: Tensor, log_ratio: Tensor) -> Tensor:
    r"""Return :math:`x \log \frac{x}{m} + m - x \ge 0`, accurate also where x is close to m.

    Args:
        x: at least 0
        mean: m, at least 0
        difference: :math:`x - m`, which the caller often knows more accurately than a subtraction gives it
        log_ratio: :math:`\log(x / m)`, any finite number where x is 0
    """
    v = difference / (x + mean).clamp(min=torch.finfo(mean.dtype).tiny)
    near = v.abs() < 0.2
    v = torch.where(near, v, 0.0)
    s = v * v
    series = s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s * (1 / 9 + s * (1 / 11 + s / 13)))))
    return torch.where(near, difference * v + 2 * x * v * series, x * log_ratio - difference)


def log_poisson(x: Tensor, rate: Tensor, log_rate: Tensor) -> Tensor:
    """Return the Poisson log-probability of the count ``x``; the rate may underflow, its logarithm does not."""
    log_x = torch.where(x > 0, x, 1.0).log()
    return -deviance(x, rate, x - rate, log_x - log_rate) - factorial_remainder(x)


def log_interval(low: Tensor, high: Tensor, width: Tensor) -> Tensor:
    r"""Return :math:`\log(\operatorname{sigmoid} b - \operatorname{sigmoid} a)`, given a, b and b - a > 0.

    It equals :math:`\log \operatorname{sigmoid} b + \log \operatorname{sigmoid}(-a) + \log(1 - e^{a - b})`, a sum
    without cancellation.
    """
    return logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(-width))


def log_outside(distance: Tensor) -> Tensor:
    """Return the log-density outside of a range of width 1, an exponential with half of :data:`OUTSIDE` per side."""
    return math.log(OUTSIDE / 2) - distance


def log_sum_exp(parts: Tensor) -> Tensor:
    """Return the logarithm of the sum of ``exp(parts)`` over the last dimension.

    Unlike ``torch.logsumexp`` it has the right gradient for values of -1e8, where the result is rounded by 8.
    """
    top = parts.detach().amax(-1, keepdim=True)
    return torch.logsumexp(parts - top, -1) + top.squeeze(-1)


def log_gamma_ratio(a: Tensor, b: float) -> Tensor:
    r"""Return :math:`\log \Gamma(a + b) - \log \Gamma(a)` for positive a and :math:`b \ge 0`.

    Stirling's series is subtracted term by term, after the recurrence :math:`\Gamma(a + 1) = a \Gamma(a)` has
    raised the argument.
    """
    shift = sum((b / (a + i)).log1p() for i in range(RECURRENCE_STEPS))
    low = a + RECURRENCE_STEPS
    high = low + b
    main = (low - 0.5) * (b / low).log1p() + b * high.log() - b
    return main + stirling_remainder(high) - stirling_remainder(low) - shift


def digamma_difference(a: Tensor, b: float) -> Tensor:
    r"""Return :math:`\psi(a + b) - \psi(a)` for positive a and :math:`b \ge 0`."""
    shift = sum(b / ((a + i) * (a + b + i)) for i in range(RECURRENCE_STEPS))
    low = a + RECURRENCE_STEPS
    high = low + b
    return (b / low).log1p() + b / (2 * low * high) + digamma_remainder(high) - digamma_remainder(low) + shift


def stirling_remainder(x: Tensor) -> Tensor:
    """Return log-gamma minus Stirling's formula, for x of 10 or more."""
    y = 1 / x
    square = y * y
    return y * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))


def digamma_remainder(x: Tensor) -> Tensor:
    """Return digamma minus log x - 1/(2x), for x of 10 or more."""
    square = 1 / (x * x)
    return -square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))


def mean_between(
    low: Tensor, high: Tensor, log_density: Callable[[Tensor], Tensor], value: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the mean of ``value`` under a smooth density truncated to a range, by quadrature with positive weights.

    Args:
        low, high: ends of the range
        log_density: the log-density up to a constant
        value: a function of a number in the range

    Returns:
        The mean, and the integral of the density over the range.
    """
    total, mass = torch.zeros_like(low), torch.zeros_like(low)
    for node, weight in zip(NODES.tolist(), WEIGHTS.tolist(), strict=True):
        x = (low + high) / 2 + node * (high - low) / 2
        share = weight * log_density(x).exp()
        total, mass = total + share * value(x), mass + share
    return total / mass, mass * (high - low) / 2
