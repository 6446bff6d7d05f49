"""Schedules for ``beta``: callables from the number of the step to a number, and a capacity in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Cyclical", "Linear", "Sigmoid"]


@dataclass(frozen=True)
class Linear:
    r"""Rise (or fall) on a straight line, then stay: KL warm-up.

    .. math:: \beta_t = a + (b - a) \min(t / T, 1)

    References:
        Ladder variational autoencoders (Sonderby et al., 2016), https://arxiv.org/abs/1602.02282

    Args:
        steps: T, the training step at which the end is reached
        start: a, the value at step 0
        end: b, the value from step T on

    Raises:
        ValueError: fewer steps than one, or a negative weight.

    Example:
        >>> warm_up = Linear(100)
        >>> warm_up(0), warm_up(50), warm_up(1000)
        (0.0, 0.5, 1.0)
    """

    steps: int
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: expected at least 1, got {self.steps}")
        check_weights(start=self.start, end=self.end)

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True)
class Cyclical:
    r"""Rise on a straight line and stay, several times over; after the last time stay for good.

    .. math:: \beta_t = a + (b - a) \min(\tau_t / R, 1), \qquad \tau_t = \frac{t \bmod (T / M)}{T / M}

    for :math:`t < T`, and b from there on.

    References:
        Cyclical annealing schedule: a simple approach to mitigating KL vanishing (Fu et al., 2019),
        https://arxiv.org/abs/1903.10145

    Args:
        steps: T, the training step at which the last cycle ends
        cycles: M
        ratio: R, the share of a cycle in which the value rises
        start: a, the value at the start of each cycle
        end: b, the value at the end of each cycle and from step T on

    Raises:
        ValueError: fewer steps than cycles, a ratio outside of (0, 1], or a negative value.

    Example:
        >>> beta = Cyclical(100, cycles=2)
        >>> beta(0), beta(10), beta(25), beta(49), beta(50), beta(100)
        (0.0, 0.4, 1.0, 1.0, 0.0, 1.0)
    """

    steps: int
    cycles: int = 4
    ratio: float = 0.5
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.cycles < 1:
            raise ValueError(f"cycles: expected at least 1, got {self.cycles}")
        if self.steps < self.cycles:
            raise ValueError(f"steps: expected at least one for each of {self.cycles} cycles, got {self.steps}")
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio: expected a share of a cycle, above 0 and at most 1, got {self.ratio}")
        check_weights(start=self.start, end=self.end)

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        if step >= self.steps:
            return self.end
        # whole numbers: the start of a cycle must not be missed by a rounding error
        risen = (step * self.cycles % self.steps) / self.steps / self.ratio
        return self.start + (self.end - self.start) * min(risen, 1.0)


@dataclass(frozen=True)
class Sigmoid:
    r"""Rise (or fall) on a logistic curve.

    .. math:: \beta_t = a + (b - a) \, \frac{1}{1 + e^{-(t - m) / w}}

    References:
        Generating sentences from a continuous space (Bowman et al., 2016), https://arxiv.org/abs/1511.06349

    Args:
        middle: m, the training step half-way between start and end
        width: w, in steps: between m - 2.2 w and m + 2.2 w lie four fifths of the way
        start: a, the value long before the middle
        end: b, the value long after the middle

    Raises:
        ValueError: a width that is not positive, or a negative middle or value.

    Example:
        >>> beta = Sigmoid(1000, 100)
        >>> beta(0) < 1e-4, beta(1000), beta(2000) > 1 - 1e-4
        (True, 0.5, True)
    """

    middle: float
    width: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.width < float("inf"):
            raise ValueError(f"width: expected a positive number of steps, got {self.width}")
        check_weights(middle=self.middle, start=self.start, end=self.end)

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        # the hyperbolic tangent does not overflow
        risen = 0.5 + 0.5 * math.tanh(0.5 * (step - self.middle) / self.width)
        return self.start + (self.end - self.start) * risen


def check_weights(**values: float) -> None:
    """Refuse numbers that are negative, infinite or NaN."""
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}: expected a number of at least 0, got {value}")
