"""The base of columns of numbers with a location, a scale and a range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyro_vae.data.tables.column import Column
from pyro_vae.distributions import TruncatedNormal
from pyro_vae.scales import positive

__all__ = ["EXACT", "MARGIN", "Ranged", "around", "below_one", "location_scale", "moments", "within"]

#: Share of the observed range by which a column may exceed it.
MARGIN = 0.05
#: Natural limits of amounts, proportions and percentages, which no margin crosses.
ENDS = (-100.0, -1.0, 0.0, 1.0, 100.0)
#: Smallest scale that a float32 holds with all its digits.
SMALLEST = float(np.finfo(np.float32).tiny)
#: A float32 holds every integer up to this one.
EXACT = 2**24


@dataclass(frozen=True, repr=False)
class Ranged(Column):
    """The base of columns with location, scale and, if both ends are given, a range of values."""

    shift: float = 0.0
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    outputs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None) or (self.low is not None and not self.low < self.high):
            raise ValueError(f"low, high: expected a range of {self.name!r}, got {self.low} and {self.high}")

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the attributes that hold the units."""
        return ("shift", "scale") if self.low is None else ("shift", "scale", "low", "high")

    def features(self, x: Tensor, *units: Tensor) -> Tensor:
        """Return the standardized value."""
        shift, scale, *_ = units or (self.shift, self.scale)
        return ((x - shift) / scale).unsqueeze(-1)

    def __str__(self) -> str:
        if self.low is None:
            return str(self.cells)
        ends = self.decode(np.array([self.low, self.high], float))
        low, high = (f"{end:.6g}" if isinstance(end, float) else str(end) for end in ends)
        return f"{low} to {high} {self.cells}".strip()


def moments(numbers: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, 1 if all numbers are equal in float32."""
    spread = float(numbers.std())
    # the rounding of the mean gives equal numbers a spread
    apart = np.float32(numbers.min()) != np.float32(numbers.max())
    return float(numbers.mean()), spread if apart and spread > SMALLEST else 1.0


def around(low: float, high: float, *, logarithmic: bool = False, capped: bool = True) -> tuple[float, float]:
    """Return the ends of the range of a column, with a margin on each side that crosses none of :data:`ENDS`.

    The margin is a share of the range, or of that of the logarithms; of a constant, a share of its size.

    Args:
        low, high: the smallest and the largest number
        logarithmic: whether the margin is that of the logarithms
        capped: whether :data:`ENDS` apply

    Example:
        >>> around(0.2, 0.98), around(-3.0, 7.0)
        ((0.161, 1.0), (-3.5, 7.5))
    """
    if logarithmic:
        margin = MARGIN * (math.log(high / low) or 1.0)
        ends = low * math.exp(-margin), high * math.exp(margin)
    else:
        margin = MARGIN * next(size for size in (high - low, abs(low), 1.0) if size > 1e3 * SMALLEST)
        ends = low - margin, high + margin
    below = max([ends[0], *(end for end in ENDS if capped and end <= low)])
    above = min([ends[1], *(end for end in ENDS if capped and end >= high)])
    return (float(below), float(above)) if below < above else (float(ends[0]), float(ends[1]))


def within(raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return ``raw`` where it is well inside of a range, and smoothly the nearer end where it is outside."""
    soft = (0.1 * (high - low)).clamp(1e-6, 0.5)
    inside = low + soft * (softplus((raw - low) / soft) - softplus((raw - high) / soft))
    return torch.maximum(torch.minimum(inside, high), low)


def location_scale(
    free: type[dist.TorchDistribution], truncated: type[TruncatedNormal], raw: Tensor, *units: Tensor
) -> dist.TorchDistribution:
    """Return a distribution with location and scale from the network, truncated if units have a range."""
    shift, scale, *ends = units
    if not ends:
        return free(shift + scale * raw[..., 0], scale * positive(raw[..., 1]))
    low, high = ((end - shift) / scale for end in ends)
    loc = shift + scale * within(raw[..., 0], low, high)
    return truncated(torch.maximum(torch.minimum(loc, ends[1]), ends[0]), scale * below_one(raw[..., 1]), *ends)


def below_one(raw: Tensor) -> Tensor:
    """Return positive numbers below 1, for the scale of a truncated distribution in units of that of its column.

    On average the variance given z is at most that of the column, and a wider one would be nearly uniform: its
    location would have no gradient.
    """
    return -torch.expm1(-positive(raw))
