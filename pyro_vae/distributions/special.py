"""Log-densities of counts and proportions without the cancellation of large log-gamma functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["deviance", "factorial_remainder", "log_interval", "log_total", "poisson"]


def factorial_remainder(x: Tensor) -> Tensor:
    r"""Return :math:`g(x) = \log \Gamma(x + 1) - x \log x + x`, which is 0 at 0 and grows like half a logarithm.

    Where a density takes differences of log-gamma functions of 1e10 that leave 10, float32 has lost everything:
    written in g, the large parts are gone before a number is rounded.
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
        difference: :math:`x - m`; the caller often knows it better than a subtraction would
        log_ratio: :math:`\log(x / m)`, any finite number where x is 0
    """
    v = difference / (x + mean).clamp(min=torch.finfo(mean.dtype).tiny)
    near = v.abs() < 0.2
    v = torch.where(near, v, 0.0)
    s = v * v
    series = s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s * (1 / 9 + s * (1 / 11 + s / 13)))))
    return torch.where(near, difference * v + 2 * x * v * series, x * log_ratio - difference)


def poisson(x: Tensor, rate: Tensor, log_rate: Tensor) -> Tensor:
    """Return the log-probability of the count ``x`` under a rate given twice, as it may underflow."""
    log_x = torch.where(x > 0, x, 1.0).log()
    return -deviance(x, rate, x - rate, log_x - log_rate) - factorial_remainder(x)


def log_interval(low: Tensor, high: Tensor, width: Tensor) -> Tensor:
    r"""Return :math:`\log(\operatorname{sigmoid} b - \operatorname{sigmoid} a)`, given a, b and b - a > 0.

    It equals :math:`\log \operatorname{sigmoid} b + \log \operatorname{sigmoid}(-a) + \log(1 - e^{a - b})`, of
    which no term cancels another.
    """
    return logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(-width))


def log_total(parts: Tensor) -> Tensor:
    """Return the logarithm of the sum of ``exp(parts)`` over the last dimension.

    Unlike that of ``torch.logsumexp`` its gradient is right for parts of -1e8, where the result rounds by 8.
    """
    top = parts.detach().amax(-1, keepdim=True)
    return torch.logsumexp(parts - top, -1) + top.squeeze(-1)
