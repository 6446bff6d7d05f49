"""Schedules: callables from the number of the training step to a number.

A schedule of beta returns the weight of the divergence, a schedule of the learning rate the factor that the learning
rates of the optimizer are multiplied by.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyro_vae._util.validation import check_int, check_number

__all__ = ["BETA", "LEARNING_RATE", "Cosine", "Cyclical", "Linear", "MultiStep", "Sigmoid", "last_step"]


@dataclass(frozen=True)
class Linear:
    r"""Linear warm-up (or decay), then constant; for beta and for the learning rate.

    .. math:: f_t = a + (b - a) \min(t / T, 1)

    References:
        Ladder variational autoencoders (Sonderby et al., 2016), https://arxiv.org/abs/1602.02282

    Args:
        num_steps: T, the step at which the end value is reached
        start: a, the value at step 0
        end: b, the value from step T on

    Raises:
        ValueError: ``num_steps`` below 1, or a negative value.

    Example:
        >>> warm_up = Linear(100)
        >>> warm_up(0), warm_up(50), warm_up(1000)
        (0.0, 0.5, 1.0)
    """

    num_steps: int
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        store(self, num_steps=check_int("num_steps", self.num_steps), **at_least_0(start=self.start, end=self.end))

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        return self.start + (self.end - self.start) * min(step / self.num_steps, 1.0)


@dataclass(frozen=True)
class Cyclical:
    r"""Repeated linear warm-up for beta, each followed by a constant part; constant after the last cycle.

    .. math:: \beta_t = a + (b - a) \min(\tau_t / R, 1), \qquad \tau_t = \frac{t \bmod (T / M)}{T / M}

    for :math:`t < T`, and b from there on.

    References:
        Cyclical annealing schedule: a simple approach to mitigating KL vanishing (Fu et al., 2019),
        https://arxiv.org/abs/1903.10145

    Args:
        num_steps: T, the step at which the last cycle ends
        num_cycles: M, the number of cycles
        ratio: R, the fraction of a cycle in which the value rises
        start: a, the value at the start of each cycle
        end: b, the value at the end of each cycle and from step T on

    Raises:
        ValueError: fewer steps than cycles, a ratio outside of (0, 1], or a negative value.

    Example:
        >>> beta = Cyclical(100, num_cycles=2)
        >>> beta(0), beta(10), beta(25), beta(49), beta(50), beta(100)
        (0.0, 0.4, 1.0, 1.0, 0.0, 1.0)
    """

    num_steps: int
    num_cycles: int = 4
    ratio: float = 0.5
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        cycles = check_int("num_cycles", self.num_cycles)
        # at least one step per cycle
        store(self, num_cycles=cycles, num_steps=check_int("num_steps", self.num_steps, cycles))
        store(self, ratio=check_number("ratio", self.ratio, above=0, maximum=1))
        store(self, **at_least_0(start=self.start, end=self.end))

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        if step >= self.num_steps:
            return self.end
        # in integers, so that no rounding error misses the start of a cycle
        risen = (step * self.num_cycles % self.num_steps) / self.num_steps / self.ratio
        return self.start + (self.end - self.start) * min(risen, 1.0)


@dataclass(frozen=True)
class Sigmoid:
    r"""Logistic curve from one value of beta to another.

    .. math:: \beta_t = a + (b - a) \, \frac{1}{1 + e^{-(t - m) / w}}

    References:
        Generating sentences from a continuous space (Bowman et al., 2016), https://arxiv.org/abs/1511.06349

    Args:
        midpoint: m, the step at which the value is half-way between start and end
        width: w, in steps: the value covers 80% of its way between m - 2.2 w and m + 2.2 w
        start: a, the value long before the midpoint
        end: b, the value long after the midpoint

    Raises:
        ValueError: a width that is not positive, or a negative midpoint or value.

    Example:
        >>> beta = Sigmoid(1000, 100)
        >>> beta(0) < 1e-4, beta(1000), beta(2000) > 1 - 1e-4
        (True, 0.5, True)
    """

    midpoint: float
    width: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        store(self, width=check_number("width", self.width, above=0))
        store(self, **at_least_0(midpoint=self.midpoint, start=self.start, end=self.end))

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        # in terms of the hyperbolic tangent, which does not overflow
        risen = 0.5 + 0.5 * math.tanh(0.5 * (step - self.midpoint) / self.width)
        return self.start + (self.end - self.start) * risen


@dataclass(frozen=True)
class MultiStep:
    r"""Step decay of the learning rate: multiply it by a factor at each milestone.

    .. math:: f_t = \gamma^{| \{ i : a_i \le t \} |}

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        milestones: the steps a, in ascending order; one that is given twice counts twice
        factor: gamma, positive

    Raises:
        ValueError: milestones that are not ascending ints, or a factor that is not positive.

    Example:
        >>> decay = MultiStep([100, 300], factor=0.5)
        >>> decay(99), decay(100), decay(1000)
        (1.0, 0.5, 0.25)
    """

    milestones: Sequence[int]
    factor: float = 0.1

    def __post_init__(self) -> None:
        milestones = tuple(check_int("milestones", step, 0) for step in self.milestones)
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones: expected steps in ascending order, got {milestones}")
        store(self, milestones=milestones, factor=check_number("factor", self.factor, above=0))

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``."""
        return self.factor ** bisect_right(self.milestones, step)


@dataclass(frozen=True)
class Cosine:
    r"""Cosine decay of the learning rate, then constant.

    .. math:: f_t = b + (1 - b) \, \frac{1 + \cos(\pi \min(t / T, 1))}{2}

    References:
        SGDR: stochastic gradient descent with warm restarts (Loshchilov and Hutter, 2017),
        https://arxiv.org/abs/1608.03983

    Args:
        num_steps: T, the step at which the end value is reached
        end: b, the factor from step T on

    Raises:
        ValueError: ``num_steps`` below 1, or an end outside of [0, 1].

    Example:
        >>> decay = Cosine(100)
        >>> decay(0), decay(50), decay(1000)
        (1.0, 0.5, 0.0)
    """

    num_steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        store(self, num_steps=check_int("num_steps", self.num_steps), end=check_number("end", self.end, 0, 1))

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``."""
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * min(step / self.num_steps, 1.0)))


#: Schedules by name, as configurations and the command line use them.
BETA = {cls.__name__: cls for cls in (Cyclical, Linear, Sigmoid)}
LEARNING_RATE = {cls.__name__: cls for cls in (Cosine, Linear, MultiStep)}


def last_step(schedule: Any) -> float:
    """Return the step from which on a schedule is (nearly) constant; 0 for a number or a function."""
    if isinstance(schedule, Sigmoid):
        return schedule.midpoint + 2.2 * schedule.width
    return max(getattr(schedule, "milestones", ()), default=getattr(schedule, "num_steps", 0))


def store(schedule: Any, **values: Any) -> None:
    """Set attributes of a frozen dataclass to their checked values."""
    for name, value in values.items():
        object.__setattr__(schedule, name, value)


def at_least_0(**values: Any) -> dict[str, float]:
    """Return numbers by name, or raise unless each is finite and at least 0."""
    return {name: check_number(name, value, 0) for name, value in values.items()}
