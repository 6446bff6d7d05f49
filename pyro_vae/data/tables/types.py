"""The column types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.data.tables.column import Column, missing
from pyro_vae.distributions import LogCategorical, NegativeBinomial, OnGrid, OrderedLogistic
from pyro_vae.scales import positive

__all__ = ["Binary", "Categorical", "Count", "Ordinal", "Positive", "Real"]


@dataclass(frozen=True)
class Real(Column):
    """Real numbers: normal distribution.

    Args:
        name: name of the column
        shift: mean, in the units of the table
        scale: standard deviation, in the units of the table

    Example:
        >>> Real("temperature", shift=20.0, scale=5.0).features(torch.tensor([25.0]))
        tensor([[1.]])
    """

    shift: float = 0.0
    scale: float = 1.0
    units: ClassVar[tuple[str, ...]] = ("shift", "scale")
    outputs: ClassVar[int] = 2

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a normal distribution in the units of the table."""
        shift, scale = units
        return dist.Normal(shift + scale * raw[..., 0], scale * positive(raw[..., 1]))

    def features(self, x: Tensor) -> Tensor:
        """Return the standardized value."""
        return ((x - self.shift) / self.scale).unsqueeze(-1)


@dataclass(frozen=True)
class Positive(Column):
    """Positive numbers: log-normal distribution.

    Args:
        name: name of the column
        shift: mean of the logarithm
        scale: standard deviation of the logarithm

    Example:
        >>> Positive("income").features(torch.tensor([1.0]))
        tensor([[0.]])
    """

    shift: float = 0.0
    scale: float = 1.0
    units: ClassVar[tuple[str, ...]] = ("shift", "scale")
    outputs: ClassVar[int] = 2

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a log-normal distribution in the units of the table."""
        shift, scale = units
        return dist.LogNormal(shift + scale * raw[..., 0], scale * positive(raw[..., 1]))

    def features(self, x: Tensor) -> Tensor:
        """Return the standardized logarithm, 0 for a missing value (NaN, or 0 where a program filled it in)."""
        logarithm = torch.where(x > 0, x, 1.0).log()
        return torch.where(x > 0, (logarithm - self.shift) / self.scale, 0.0).unsqueeze(-1)


@dataclass(frozen=True)
class Count(Column):
    """Counts 0, 1, 2, ...: negative binomial distribution.

    Args:
        name: name of the column
        scale: mean count

    Example:
        >>> Count("children", scale=2.0).features(torch.tensor([0.0]))
        tensor([[0.]])
    """

    scale: float = 1.0
    units: ClassVar[tuple[str, ...]] = ("scale",)
    outputs: ClassVar[int] = 2

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a negative binomial distribution with a mean in units of the mean count."""
        return NegativeBinomial(units[0] * positive(raw[..., 0]), positive(raw[..., 1]))

    def features(self, x: Tensor) -> Tensor:
        """Return log(1 + x / scale)."""
        return torch.log1p(x / self.scale).unsqueeze(-1)

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return integers, or floats where a value is missing."""
        return np.round(x) if np.isnan(x).any() else np.round(x).astype(np.int64)


@dataclass(frozen=True)
class Labels(Column):
    """The base of columns of labels, encoded as the codes 0, 1, 2, ... of ``values``."""

    values: tuple[Any, ...] = (0, 1)

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len(set(self.values)) < len(self.values):
            raise ValueError(f"values: expected two or more different values of {self.name!r}, got {self.values}")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the codes of labels, NaN where one is missing."""
        codes = {value: float(i) for i, value in enumerate(self.values)}
        rows = list(zip(values.tolist(), missing(values), strict=True))
        unknown = {value for value, gone in rows if not gone and value not in codes}
        if unknown:
            raise ValueError(
                f"column {self.name!r}: expected one of {self.values}, got {sorted(map(str, unknown))[:5]}. Add them "
                "to the column, or infer it from all data"
            )
        return np.array([np.nan if gone else codes[value] for value, gone in rows])

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return the labels of codes, None where one is missing."""
        kind = np.array(self.values).dtype if not np.isnan(x).any() else object
        codes = np.clip(np.round(np.nan_to_num(x)), 0, len(self.values) - 1).astype(int)
        return np.array([None if np.isnan(v) else self.values[c] for v, c in zip(x, codes, strict=True)], dtype=kind)


@dataclass(frozen=True)
class Binary(Labels):
    """Two values: Bernoulli distribution.

    Args:
        name: name of the column
        values: the two values, in the order of their codes 0 and 1

    Raises:
        ValueError: there are not two different values.

    Example:
        >>> Binary("smoker", ("no", "yes")).encode(np.array(["yes", "no"]))
        array([1., 0.])
    """

    outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) != 2:
            raise ValueError(f"values: expected two values of {self.name!r}, got {self.values}")

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a Bernoulli distribution."""
        return dist.Bernoulli(logits=raw[..., 0])

    def features(self, x: Tensor) -> Tensor:
        """Return the code."""
        return x.unsqueeze(-1)


@dataclass(frozen=True)
class Categorical(Labels):
    """Values without an order: categorical distribution.

    Args:
        name: name of the column
        values: all values, in the order of their codes

    Example:
        >>> Categorical("colour", ("red", "green", "blue")).features(torch.tensor([2.0]))
        tensor([[0., 0., 1.]])
    """

    @property
    def outputs(self) -> int:
        """One output per value."""
        return len(self.values)

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a categorical distribution over the codes."""
        return OnGrid(LogCategorical(raw.log_softmax(-1)), len(self.values), ordered=False)

    def features(self, x: Tensor) -> Tensor:
        """Return the code as a one-hot vector, zeros for a missing value."""
        return (x.unsqueeze(-1) == torch.arange(len(self.values), device=x.device)).to(x.dtype)


@dataclass(frozen=True)
class Ordinal(Labels):
    """Ordinal values: ordered logistic distribution, with location and thresholds from the decoder.

    Args:
        name: name of the column
        values: all values, from the lowest to the highest

    Example:
        >>> Ordinal("grade", ("poor", "fair", "good")).features(torch.tensor([0.0, 2.0]))
        tensor([[-1.],
                [ 1.]])
    """

    @property
    def outputs(self) -> int:
        """The location, and the distances between thresholds."""
        return len(self.values) - 1

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return an ordered logistic distribution whose thresholds start at minus half their number."""
        first = torch.full_like(raw[..., 0], -(len(self.values) - 2) / 2)
        return OnGrid(OrderedLogistic(raw[..., 0], positive(raw[..., 1:]), first), len(self.values))

    def features(self, x: Tensor) -> Tensor:
        """Return the code, rescaled to [-1, 1]."""
        return (2 * x / (len(self.values) - 1) - 1).unsqueeze(-1)
