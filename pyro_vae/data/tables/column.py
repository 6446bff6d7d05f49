"""The base of all column types."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.data.tables.cells import Cells, Numbers
from pyro_vae.data.tables.values import plain

__all__ = ["Column", "grouped"]


@dataclass(frozen=True, repr=False)
class Column(ABC):
    """One column of a table: a name, and how a subclass encodes and models its values.

    Args:
        name: name of the column
        cells: how its values are written in the table

    Example:
        >>> import pyro_vae as pv
        >>> [type(column).__name__ for column in pv.data.tables.schema({"age": [31.5, 40.0], "member": [True, False]})]
        ['Positive', 'Binary']
    """

    name: str
    cells: Cells = field(default=Numbers(), kw_only=True)

    @classmethod
    @abstractmethod
    def of(cls, name: str, numbers: np.ndarray, cells: Cells) -> Column:
        """Return a column with the units of these numbers, which have no NaN."""

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the attributes that hold the units, in which the outputs of a network are of order one."""
        return ()

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of decoder outputs that the distribution needs."""

    @property
    def group(self) -> Hashable:
        """What columns have in common that are computed together."""
        return type(self), self.outputs, self.units

    @abstractmethod
    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return the distribution of n columns of this type, from ``(*batch, n, outputs)`` and units of ``(n,)``."""

    @abstractmethod
    def features(self, x: Tensor, *units: Tensor) -> Tensor:
        """Return what an encoder sees, from ``(*batch,)`` to ``(*batch, width)``, of order one.

        ``units`` are those of n columns of this type, for ``x`` of shape ``(*batch, n)``; by default its own.
        """

    def context(self, x: Tensor) -> Tensor:
        """Return what a program gets as context, from ``(*batch,)`` to ``(*batch, width)``, of order one."""
        return self.features(x)

    @property
    def entries(self) -> tuple[str, ...]:
        """What each entry of the context is, such as ``batch=run 0`` or ``age``."""
        return (self.name,) * self.features(torch.zeros(1)).shape[-1]

    def nearest(self, x: Tensor) -> Tensor:
        """Return the nearest values that the column can have, for means."""
        return x

    def encode(self, values: Any) -> np.ndarray:
        """Return values of a table as numbers, NaN where one is missing.

        Raises:
            ValueError: the column cannot have one of the values.
        """
        return self.codes(plain(values))

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Return :func:`plain` values as numbers; an error names the column."""
        return self.named(self.to_numbers, values)

    def possible(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers as :meth:`codes` does, NaN where the column cannot have a value; and a mask of those."""
        return self.named(self.checked, values)

    def named(self, function: Callable[[np.ndarray], Any], values: np.ndarray) -> Any:
        """Call a function of values; an error names the column."""
        try:
            return function(values)
        except ValueError as error:
            raise ValueError(f"column {self.name!r}: {error} (its type is {type(self).__name__})") from error

    def checked(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers and mask for :meth:`possible`."""
        x = self.to_numbers(values)
        units = [torch.tensor(float(getattr(self, unit))) for unit in self.units]
        support = self.family(torch.zeros(self.outputs), *units).support
        inside = support.check(torch.from_numpy(x.astype(np.float32))).numpy() & ~np.isinf(x.astype(np.float32))
        wrong = ~(inside | np.isnan(x))
        return np.where(wrong, np.nan, x), wrong

    def to_numbers(self, values: np.ndarray) -> np.ndarray:
        """Return :func:`plain` values as numbers."""
        return self.cells.read(values)

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return numbers as values of a table."""
        return self.cells.write(x)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that differ from their defaults, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {f.name: found[f.name] for f in fields(self) if f.default != found[f.name]}

    def __str__(self) -> str:
        """Return the values that the column can have, in words."""
        return str(self.cells)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"


def grouped(columns: Sequence[Column]) -> dict[Hashable, list[int]]:
    """Return the indices of the columns that are computed together."""
    groups: dict[Hashable, list[int]] = {}
    for i, c in enumerate(columns):
        groups.setdefault(c.group, []).append(i)
    return groups
