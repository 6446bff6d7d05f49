"""Schedules: callables from the number of the step to a number, for ``beta``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Linear"]


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
        for name, value in (("start", self.start), ("end", self.end)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a number of at least 0, got {value}")

    def __call__(self, step: int) -> float:
        """Return the value at ``step``."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)
