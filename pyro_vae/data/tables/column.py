"""The base of all column types, and helpers for values some of which are missing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pyro import distributions as dist
from torch import Tensor

__all__ = ["Column", "as_numbers", "missing", "numeric"]


@dataclass(frozen=True)
class Column(ABC):
    """One column of a table: a name, and how a subclass encodes and models its values.

    Args:
        name: name of the column

    Example:
        >>> import pyro_vae as pv
        >>> [type(column).__name__ for column in pv.data.tables.schema({"age": [31.5, 40.0], "member": [True, False]})]
        ['Positive', 'Binary']
    """

    name: str

    #: Names of the fields that hold the units, in which the outputs of a network are of order one.
    units: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of decoder outputs that the distribution needs."""

    @abstractmethod
    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return the distribution of n columns of this type.

        Args:
            raw: decoder outputs, ``(*batch, n, outputs)``
            units: the units of each column, ``(n,)`` each
        """

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return what an encoder sees, from ``(*batch,)`` to ``(*batch, width)``, of order one."""

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return values of a table as numbers, NaN where one is missing.

        Raises:
            ValueError: the column cannot have one of the values.
        """
        try:
            return as_numbers(values)
        except (TypeError, ValueError) as error:
            row = next(i for i, value in enumerate(values.tolist()) if not is_number(value))
            raise ValueError(
                f"column {self.name!r}: expected numbers, as its type is {type(self).__name__}, got {values[row]!r} "
                f"in row {row}"
            ) from error

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return numbers as values of a table."""
        return x


def missing(values: np.ndarray) -> np.ndarray:
    """Return a mask of the missing values: None, NaN, and pandas' NA and NaT."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind != "O":
        return np.zeros(len(values), bool)
    kinds = {"NAType", "NaTType", "NoneType"}
    return np.array([type(v).__name__ in kinds or (isinstance(v, float) and v != v) for v in values], bool)


def numeric(present: np.ndarray) -> bool:
    """Return whether all values are numbers."""
    if present.dtype.kind != "O":
        return present.dtype.kind in "fiub"
    return all(isinstance(v, (int, float, np.number)) for v in present)


def as_numbers(values: np.ndarray) -> np.ndarray:
    """Return values as floats, NaN where one is missing."""
    gone = missing(values)
    return np.where(gone, np.nan, np.where(gone, 0, values).astype(float))


def is_number(value: Any) -> bool:
    """Return whether a value is missing or can be converted to a number."""
    try:
        as_numbers(np.array([value], object))
    except (TypeError, ValueError):
        return False
    return True
