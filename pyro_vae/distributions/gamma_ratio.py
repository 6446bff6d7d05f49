"""Differences of log-gamma and digamma functions, without the cancellation of taking them one by one."""

from __future__ import annotations

from torch import Tensor

__all__ = ["digamma_difference", "log_gamma_ratio"]

#: Steps upward after which the asymptotic series is exact to float64 rounding at its last term.
STEPS = 10


def log_gamma_ratio(a: Tensor, b: float) -> Tensor:
    r"""Return :math:`\log \Gamma(a + b) - \log \Gamma(a)` for positive a and :math:`b \ge 0`.

    At a of 10000 each of the two is about 80000, so that in float32 their difference has lost its decimals. Here
    Stirling's series is subtracted term by term, at an argument lifted by the recurrence
    :math:`\Gamma(a + 1) = a \Gamma(a)`.
    """
    lift = sum((b / (a + i)).log1p() for i in range(STEPS))
    low = a + STEPS
    high = low + b
    main = (low - 0.5) * (b / low).log1p() + b * high.log() - b
    return main + stirling(high) - stirling(low) - lift


def digamma_difference(a: Tensor, b: float) -> Tensor:
    r"""Return :math:`\psi(a + b) - \psi(a)` for positive a and :math:`b \ge 0`."""
    lift = sum(b / ((a + i) * (a + b + i)) for i in range(STEPS))
    low = a + STEPS
    high = low + b
    return (b / low).log1p() + b / (2 * low * high) + series(high) - series(low) + lift


def stirling(x: Tensor) -> Tensor:
    """Return what Stirling's formula leaves out of log-gamma, for x of 10 or more."""
    y = 1 / x
    square = y * y
    return y * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))


def series(x: Tensor) -> Tensor:
    """Return what log x - 1/(2x) leaves out of digamma, for x of 10 or more."""
    square = 1 / (x * x)
    return -square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
