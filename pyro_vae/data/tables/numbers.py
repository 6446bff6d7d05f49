"""The column types of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.data.tables.cells import Cells, Numbers
from pyro_vae.data.tables.column import Column
from pyro_vae.data.tables.ranged import EXACT, MARGIN, Ranged, around, below_one, location_scale, moments, within
from pyro_vae.distributions import NegativeBinomial, RoundedLogistic, TruncatedLogNormal, TruncatedNormal
from pyro_vae.scales import positive

__all__ = ["Count", "Integer", "Positive", "Real"]

#: Scale of a logistic with standard deviation 1.
LOGISTIC = math.sqrt(3) / math.pi


@dataclass(frozen=True, repr=False)
class Real(Ranged):
    """Real numbers: normal distribution, truncated to a range if there is one.

    Outside the range the density is small but not zero; samples and means lie inside.

    Args:
        shift: mean, in the units of the table
        scale: standard deviation, in the units of the table
        low, high: ends of the range, in the units of the table; None for no range

    Raises:
        ValueError: one end is missing, or the range is empty.

    Example:
        >>> Real("temperature", shift=20.0, scale=5.0).features(torch.tensor([25.0]))
        tensor([[1.]])
    """

    @classmethod
    def of(cls, name: str, numbers: np.ndarray, cells: Cells) -> Real:
        """Return a column with the moments and the range of these numbers."""
        ends = around(numbers.min(), numbers.max(), capped=cells.has_zero)
        return cls(name, *moments(numbers), *cells.inside(*ends), cells=cells)

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a normal distribution in the units of the table."""
        return location_scale(dist.Normal, TruncatedNormal, raw, *units)


@dataclass(frozen=True, repr=False)
class Positive(Ranged):
    """Positive numbers: log-normal distribution, truncated to a range if there is one.

    Args:
        shift: mean of the logarithm
        scale: standard deviation of the logarithm
        low, high: ends of the range, in the units of the table; None for no range

    Example:
        >>> Positive("income").features(torch.tensor([1.0]))
        tensor([[0.]])
    """

    @classmethod
    def of(cls, name: str, numbers: np.ndarray, cells: Cells) -> Positive:
        """Return a column with the moments and the range of the logarithms of these numbers."""
        if numbers.min() <= 0:
            raise ValueError(f"expected positive numbers, got {numbers.min():.6g}")
        logarithms = np.log(numbers)
        ends = around(numbers.min(), numbers.max(), logarithmic=True)
        return cls(name, *moments(logarithms), *cells.inside(*ends), cells=cells)

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the attributes that hold the units."""
        return ("shift", "scale") if self.low is None else ("shift", "scale", "log_low", "log_high")

    @property
    def log_low(self) -> float:
        """Logarithm of the lower end."""
        return math.log(self.low)

    @property
    def log_high(self) -> float:
        """Logarithm of the upper end."""
        return math.log(self.high)

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a log-normal distribution in the units of the table."""
        return location_scale(dist.LogNormal, TruncatedLogNormal, raw, *units)

    def features(self, x: Tensor, *units: Tensor) -> Tensor:
        """Return the standardized logarithm, 0 for a missing value (NaN, or 0 where a program filled it in)."""
        shift, scale, *_ = units or (self.shift, self.scale)
        logarithm = torch.where(x > 0, x, 1.0).log()
        return torch.where(x > 0, (logarithm - shift) / scale, 0.0).unsqueeze(-1)


@dataclass(frozen=True, repr=False)
class Integer(Ranged):
    """Integers of any sign: logistic distribution, truncated to a range and rounded.

    Args:
        shift: mean
        scale: standard deviation
        low, high: smallest and largest value; samples and means lie between them

    Example:
        >>> Integer("year", 2000.0, 8.0, 1980, 2024).nearest(torch.tensor([2001.7]))
        tensor([2002.])
    """

    low: float = -EXACT
    high: float = EXACT
    cells: Cells = field(default=Numbers(whole=True), kw_only=True)

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low, high: expected a range of {self.name!r}, got {self.low} and {self.high}")

    @classmethod
    def of(cls, name: str, numbers: np.ndarray, cells: Cells) -> Integer:
        """Return a column with the moments and the range of these numbers."""
        low, high = around(numbers.min(), numbers.max(), capped=cells.has_zero)
        return cls(name, *moments(numbers), math.ceil(low), math.floor(high), cells=cells)

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a rounded logistic distribution."""
        shift, scale, low, high = units
        loc = shift + scale * within(raw[..., 0], (low - shift) / scale, (high - shift) / scale)
        return RoundedLogistic(loc, scale * LOGISTIC * below_one(raw[..., 1]), low, high)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the nearest integers."""
        return x.round()

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return integers."""
        return self.cells.write(np.round(x))


@dataclass(frozen=True, repr=False)
class Count(Column):
    """Counts 0, 1, 2, ...: negative binomial distribution.

    Args:
        scale: mean count
        high: upper limit of means; None for no limit

    Example:
        >>> Count("children", scale=2.0).features(torch.tensor([0.0]))
        tensor([[0.]])
    """

    scale: float = 1.0
    high: float | None = None
    cells: Cells = field(default=Numbers(whole=True), kw_only=True)
    outputs: ClassVar[int] = 2

    @classmethod
    def of(cls, name: str, numbers: np.ndarray, cells: Cells) -> Count:
        """Return a column with the mean of these numbers."""
        if numbers.min() < 0 or (numbers != np.round(numbers)).any():
            wrong = numbers[(numbers < 0) | (numbers != np.round(numbers))][0]
            raise ValueError(f"expected counts 0, 1, 2, ..., got {wrong:.6g}")
        high = numbers.max() + max(1.0, MARGIN * np.ptp(numbers))
        return cls(name, float(numbers.mean()) or 1.0, float(high), cells=cells)

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the attributes that hold the units."""
        return ("scale",) if self.high is None else ("scale", "high")

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a negative binomial distribution with a mean in units of the mean count."""
        mean = units[0] * positive(raw[..., 0])
        mean = mean if len(units) == 1 else -units[1] * torch.expm1(-mean / units[1])
        return NegativeBinomial(mean, positive(raw[..., 1]))

    def features(self, x: Tensor, *units: Tensor) -> Tensor:
        """Return log(1 + x / scale)."""
        scale, *_ = units or (self.scale,)
        return torch.log1p(x / scale).unsqueeze(-1)

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.decode(np.arange(3.0))))}, ..."

    def nearest(self, x: Tensor) -> Tensor:
        """Return the nearest counts."""
        return x.round()

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return integers."""
        return self.cells.write(np.round(x))
