"""Supports (constraints) that torch lacks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["Bags", "Grid", "open_unit_interval", "whole_numbers"]


class Grid(constraints.Constraint):
    """Equally spaced values ``0, step, 2 step, ...``, with a tolerance of 1e-4.

    Args:
        levels: number of values
        step: distance between neighbouring values
    """

    is_discrete = True
    lower_bound = 0.0

    def __init__(self, levels: int, step: float) -> None:
        self.levels, self.step = levels, step
        super().__init__()

    def __repr__(self) -> str:
        top = (self.levels - 1) * self.step
        return f"the {self.levels} equally spaced values 0, {self.step:.6g}, ..., {top:.6g}"

    def check(self, value: Tensor) -> Tensor:
        """Return where ``value`` lies on the grid."""
        level = torch.round(value / self.step)
        return (level >= 0) & (level < self.levels) & ((value - level * self.step).abs() <= 1e-4)

    def values(self) -> Tensor:
        """Return all values."""
        return torch.arange(self.levels) * self.step


class Bags(constraints.Constraint):
    """Arrays of counts with any total.

    Args:
        event_dim: number of dimensions of an array
        total: total count of a sample; the probabilities of all arrays with this total sum to one
    """

    is_discrete = True

    def __init__(self, event_dim: int, total: int) -> None:
        self.event_dim, self.total = event_dim, total
        super().__init__()

    def __repr__(self) -> str:
        return "counts 0, 1, 2, ..."

    def check(self, value: Tensor) -> Tensor:
        """Return where all entries are counts."""
        good = (value >= 0) & (value == value.floor())
        return good.flatten(value.dim() - self.event_dim).all(-1) if self.event_dim else good


class _OpenUnitInterval(constraints.Constraint):
    lower_bound, upper_bound = 0.0, 1.0

    def __repr__(self) -> str:
        return "values strictly between 0 and 1"

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < 1)


open_unit_interval = _OpenUnitInterval()


class _WholeNumbers(constraints.Constraint):
    is_discrete = True

    def __repr__(self) -> str:
        return "whole numbers"

    def check(self, value: Tensor) -> Tensor:
        return value == value.round()


whole_numbers = _WholeNumbers()
