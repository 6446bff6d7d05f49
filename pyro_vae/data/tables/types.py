"""The types of columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.data.tables.values import as_numbers, is_number, missing
from pyro_vae.distributions import LogCategorical, NegativeBinomial, OnGrid, OrderedLogistic
from pyro_vae.scales import positive

__all__ = ["Binary", "Categorical", "Column", "Count", "Ordinal", "Positive", "Real"]


@dataclass(frozen=True)
class Column(ABC):
    """One column of a table: a name, and what subclasses know of its values.

    Args:
        name: what the column is called

    Example:
        >>> import pyro_vae as pv
        >>> [type(column).__name__ for column in pv.data.tables.schema({"age": [31.5, 40.0], "member": [True, False]})]
        ['Positive', 'Binary']
    """

    name: str

    #: What numbers the units are, in which a network's outputs are of the order of one.
    units: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers the family takes of the decoder."""

    @abstractmethod
    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return the distribution of n columns of this type, from ``(*batch, n, outputs)`` and units of ``(n,)``."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return what an encoder sees, from ``(*batch,)`` to ``(*batch, width)``, of the order of one."""

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return values of a table as numbers, NaN where one is missing.

        Raises:
            ValueError: a value is none that the column can have.
        """
        try:
            return as_numbers(values)
        except (TypeError, ValueError) as error:
            row = next(i for i, v in enumerate(values.tolist()) if not is_number(v))
            raise ValueError(
                f"column {self.name!r}: expected numbers, as it is of the type {type(self).__name__}, but row {row} "
                f"holds {values[row]!r}"
            ) from error

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return numbers as values of a table."""
        return x


@dataclass(frozen=True)
class Real(Column):
    """Real numbers: normal.

    Args:
        name: what the column is called
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
        """Return a normal in the units of the table."""
        shift, scale = units
        return dist.Normal(shift + scale * raw[..., 0], scale * positive(raw[..., 1]))

    def features(self, x: Tensor) -> Tensor:
        """Return the standardised value."""
        return ((x - self.shift) / self.scale).unsqueeze(-1)


@dataclass(frozen=True)
class Positive(Column):
    """Positive numbers: log-normal.

    Args:
        name: what the column is called
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
        """Return a log-normal in the units of the table."""
        shift, scale = units
        return dist.LogNormal(shift + scale * raw[..., 0], scale * positive(raw[..., 1]))

    def features(self, x: Tensor) -> Tensor:
        """Return the standardised logarithm, 0 for what is missing (and seen as 0)."""
        logarithm = torch.where(x > 0, x, 1.0).log()
        return torch.where(x > 0, (logarithm - self.shift) / self.scale, 0.0).unsqueeze(-1)


@dataclass(frozen=True)
class Count(Column):
    """Counts 0, 1, 2, ...: negative binomial.

    Args:
        name: what the column is called
        scale: mean count

    Example:
        >>> Count("children", scale=2.0).features(torch.tensor([0.0]))
        tensor([[0.]])
    """

    scale: float = 1.0
    units: ClassVar[tuple[str, ...]] = ("scale",)
    outputs: ClassVar[int] = 2

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a negative binomial, its mean in units of the mean count."""
        return NegativeBinomial(units[0] * positive(raw[..., 0]), positive(raw[..., 1]))

    def features(self, x: Tensor) -> Tensor:
        """Return the logarithm of one more, in units of the mean count."""
        return torch.log1p(x / self.scale).unsqueeze(-1)

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return whole numbers, as floats where one is missing."""
        return np.round(x) if np.isnan(x).any() else np.round(x).astype(np.int64)


@dataclass(frozen=True)
class _Coded(Column):
    """A column of labels, read as the codes 0, 1, 2, ... of ``values``."""

    values: tuple[Any, ...] = (0, 1)

    def __post_init__(self) -> None:
        if len(self.values) < 2 or len(set(self.values)) < len(self.values):
            raise ValueError(f"column {self.name!r}: expected two or more different values, got {self.values}")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the codes of labels, NaN where one is missing."""
        codes = {value: float(i) for i, value in enumerate(self.values)}
        gone = missing(values)
        unknown = {v for v, g in zip(values.tolist(), gone, strict=True) if not g and v not in codes}
        if unknown:
            raise ValueError(
                f"column {self.name!r}: {sorted(map(str, unknown))[:5]} are none of its values {self.values}; add "
                "them to the column, or infer it from all of the data"
            )
        return np.array([np.nan if g else codes[v] for v, g in zip(values.tolist(), gone, strict=True)])

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return the labels of codes, None where one is missing."""
        kind = np.array(self.values).dtype if not np.isnan(x).any() else object
        codes = np.clip(np.round(np.nan_to_num(x)), 0, len(self.values) - 1).astype(int)
        return np.array([None if np.isnan(v) else self.values[c] for v, c in zip(x, codes, strict=True)], dtype=kind)


@dataclass(frozen=True)
class Binary(_Coded):
    """Two values: Bernoulli.

    Args:
        name: what the column is called
        values: the two, that of code 0 first

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
            raise ValueError(f"column {self.name!r}: expected two values, got {self.values}")

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a Bernoulli."""
        return dist.Bernoulli(logits=raw[..., 0])

    def features(self, x: Tensor) -> Tensor:
        """Return the code."""
        return x.unsqueeze(-1)


@dataclass(frozen=True)
class Categorical(_Coded):
    """Some values without an order: categorical.

    Args:
        name: what the column is called
        values: all of them, in the order of their codes

    Example:
        >>> Categorical("colour", ("red", "green", "blue")).features(torch.tensor([2.0]))
        tensor([[0., 0., 1.]])
    """

    @property
    def outputs(self) -> int:
        """One number a value."""
        return len(self.values)

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a categorical over the codes."""
        return OnGrid(LogCategorical(raw.log_softmax(-1)), len(self.values), ordered=False)

    def features(self, x: Tensor) -> Tensor:
        """Return the code as one of as many bits."""
        return (x.unsqueeze(-1) == torch.arange(len(self.values), device=x.device)).to(x.dtype)


@dataclass(frozen=True)
class Ordinal(_Coded):
    """Grades: ordered logistic, location and thresholds from the decoder.

    Args:
        name: what the column is called
        values: all of them, the lowest first

    Example:
        >>> Ordinal("grade", ("poor", "fair", "good")).features(torch.tensor([0.0, 2.0]))
        tensor([[-1.],
                [ 1.]])
    """

    @property
    def outputs(self) -> int:
        """The location, and the distances of the thresholds."""
        return len(self.values) - 1

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return an ordered logistic over the codes, its lowest threshold at minus half of their number."""
        first = torch.full_like(raw[..., 0], -(len(self.values) - 2) / 2)
        return OnGrid(OrderedLogistic(raw[..., 0], positive(raw[..., 1:]), first), len(self.values))

    def features(self, x: Tensor) -> Tensor:
        """Return the code between -1 and 1."""
        return (2 * x / (len(self.values) - 1) - 1).unsqueeze(-1)
