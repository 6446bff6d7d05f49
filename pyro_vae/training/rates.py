"""Schedules of the learning rate: callables from the number of the step to a factor."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from pyro_vae._util.validation import check_int

__all__ = ["Cosine", "MultiStep"]


@dataclass(frozen=True)
class MultiStep:
    r"""Fall in stages: a factor more after each of some numbers of steps.

    .. math:: f_t = \gamma^{| \{ i : a_i \le t \} |}

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        at: the steps a, in rising order; one that comes twice counts twice
        factor: what the rate is multiplied by at each of them, above 0

    Raises:
        ValueError: steps that fall, or a factor that is not positive.

    Example:
        >>> rate = MultiStep([100, 300], factor=0.5)
        >>> rate(99), rate(100), rate(1000)
        (1.0, 0.5, 0.25)
    """

    at: Sequence[int]
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", tuple(self.at))
        for step in self.at:
            check_int("at", step, 0)
        if list(self.at) != sorted(self.at):
            raise ValueError(f"at: expected steps in rising order, got {self.at}")
        if not 0 < self.factor < float("inf"):
            raise ValueError(f"factor: expected a positive number, got {self.factor}")

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``."""
        return self.factor ** bisect_right(self.at, step)


@dataclass(frozen=True)
class Cosine:
    r"""Fall on half a wave of the cosine, then stay.

    .. math:: f_t = b + (1 - b) \, \frac{1 + \cos(\pi \min(t / T, 1))}{2}

    References:
        SGDR: stochastic gradient descent with warm restarts (Loshchilov and Hutter, 2017),
        https://arxiv.org/abs/1608.03983

    Args:
        steps: T, the training step at which the end is reached
        end: b, the factor from there on

    Raises:
        ValueError: fewer steps than one, or an end outside of 0 to 1.

    Example:
        >>> rate = Cosine(100)
        >>> rate(0), rate(50), rate(1000)
        (1.0, 0.5, 0.0)
    """

    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        check_int("steps", self.steps)
        if not 0 <= self.end <= 1:
            raise ValueError(f"end: expected a number from 0 to 1, got {self.end}")

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``."""
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
