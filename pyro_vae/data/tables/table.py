"""Tables with columns of mixed types as tensors, and the types of their columns inferred from the values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.tables.column import Column, missing, numeric
from pyro_vae.data.tables.types import Binary, Categorical, Count, Ordinal, Positive, Real

__all__ = ["Table", "infer", "named", "schema"]

#: Columns of at most this many consecutive integers are inferred to be ordinal.
MAX_ORDINAL = 10


class Table:
    """A table as one float tensor that can be decoded to its columns and types again.

    Args:
        data: a pandas data frame, a dict of columns, a structured array, or an array ``(rows, columns)``
        columns: objects of ``pyro_vae.data.tables``, one per column, in the order of ``x``; inferred from the data
            if None. Pass those of the training set for a test set, so that both have the same codes

    Attributes:
        x: float32 of shape ``(rows, columns)``: numbers unchanged, labels as codes 0, 1, 2, ..., NaN where a value is
            missing
        columns: one object per column

    Raises:
        ValueError: the columns do not fit the data, or a column cannot have one of its values.

    Example:
        >>> table = Table({"age": [38.5, None, 55.2], "colour": ["red", "green", "red"]})
        >>> table.x.shape, table.names
        (torch.Size([3, 2]), ('age', 'colour'))
        >>> table.decode(torch.tensor([[40.0, 1.0]]))
        {'age': array([40.0], dtype=object), 'colour': array(['red'], dtype='<U5')}
    """

    def __init__(self, data: Any, columns: Sequence[Column] | None = None) -> None:
        parts = list(named(data))
        self.columns = tuple([infer(*part) for part in parts] if columns is None else columns)
        own, given = [name for name, _, _ in parts], list(self.names)
        if sorted(own) != sorted(given):
            differ = {"missing": [n for n in given if n not in own], "unexpected": [n for n in own if n not in given]}
            listed = "; ".join(f"{what}: {', '.join(found)}" for what, found in differ.items() if found)
            raise ValueError(f"columns: expected {', '.join(given)}, got {', '.join(own)} ({listed})")
        order = [own.index(name) for name in given]
        rows = [column.encode(parts[i][1]) for column, i in zip(self.columns, order, strict=True)]
        self.x = torch.from_numpy(np.stack(rows, -1).astype(np.float32))
        self._frame = type(data) if hasattr(data, "iloc") else None
        kinds = list(data.dtypes) if self._frame else [values.dtype for _, values, _ in parts]
        self._kinds = [kinds[i] for i in order]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    def decode(self, x: Tensor) -> Any:
        """Return rows ``(n, columns)`` as a table: a data frame if the data were one, otherwise a dict of arrays."""
        if x.dim() != 2 or x.shape[1] != len(self.columns):
            raise ValueError(f"x: expected shape (n, {len(self.columns)}), got {tuple(x.shape)}")
        numbers = x.detach().cpu().numpy()
        values = {c.name: c.decode(v) for c, v in zip(self.columns, numbers.T, strict=True)}
        if self._frame:
            values = self._frame(values)
        for name, kind, column in zip(self.names, self._kinds, numbers.T, strict=True):
            # numpy's integers, booleans and strings cannot be missing
            if not np.isnan(column).any() or not isinstance(kind, np.dtype) or kind.kind not in "iubSU":
                values[name] = values[name].astype(kind)
        return values

    def __repr__(self) -> str:
        kinds = ", ".join(f"{c.name} {type(c).__name__}" for c in self.columns)
        return f"Table({len(self.x)} rows; {kinds})"


def schema(table: Any) -> tuple[Column, ...]:
    """Infer the type of each column of a table with :func:`infer`.

    Args:
        table: a data frame, a dict of columns, or an array ``(rows, columns)``

    Raises:
        ValueError: ``table`` is none of these, or a column has no value or a single label.

    Example:
        >>> [type(column).__name__ for column in schema({"height": [1.7, 1.9], "grade": [1, 2]})]
        ['Positive', 'Binary']
    """
    return tuple(infer(*part) for part in named(table))


def infer(name: str, values: np.ndarray, order: Sequence[Any] | None = None) -> Column:
    """Infer the type of a column from its values; missing ones are ignored.

    Booleans and two labels or two integers are Binary, other labels Categorical, or Ordinal where pandas has an order
    for them. Up to ten consecutive integers are Ordinal, other integers of at least 0 Count, positive numbers
    Positive, and all others Real. The guess can be wrong (a postcode is no Count): replace the column then.

    Args:
        name: name of the column
        values: of shape ``(n,)``
        order: all labels from the lowest to the highest, if they have an order

    Returns:
        The column, with units from the values.

    Raises:
        ValueError: there is no value, or a single label.

    Example:
        >>> infer("visits", np.array([0, 3, 40]))
        Count(name='visits', scale=14.333333333333334)
    """
    present = values[~missing(values)]
    if not len(present):
        raise ValueError(f"column {name!r}: expected at least one value, all are missing")
    if order is not None:
        return Ordinal(name, tuple(order))
    if not numeric(present):
        labels = tuple(sorted(set(present.tolist()), key=str))
        return (Binary if len(labels) == 2 else Categorical)(name, labels)
    numbers = present.astype(float)
    distinct = np.unique(numbers)
    if not np.isfinite(numbers).all():
        raise ValueError(f"column {name!r}: expected finite numbers, got infinity")
    if present.dtype == bool:
        return Binary(name, (False, True))
    whole = bool((distinct == np.round(distinct)).all())
    if whole and len(distinct) == 2:
        return Binary(name, tuple(int(v) for v in distinct))
    if whole and 2 < len(distinct) <= MAX_ORDINAL and distinct[-1] - distinct[0] == len(distinct) - 1:
        return Ordinal(name, tuple(int(v) for v in distinct))
    if whole and len(distinct) > 1 and distinct[0] >= 0:
        return Count(name, float(numbers.mean()))
    if len(distinct) > 1 and distinct[0] > 0:
        return Positive(name, *moments(np.log(numbers)))
    return Real(name, *moments(numbers))


def moments(numbers: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, 1 for the standard deviation of a constant."""
    return float(numbers.mean()), float(numbers.std()) or 1.0


def named(table: Any) -> Iterator[tuple[str, np.ndarray, Sequence[Any] | None]]:
    """Yield the name, the values of shape ``(rows,)`` and the order (or None) of each column.

    Args:
        table: a data frame, a dict of columns, a structured array, or an array ``(rows, columns)``

    Raises:
        ValueError: ``table`` is none of these.

    Example:
        >>> [name for name, values, order in named(np.zeros((5, 2)))]
        ['0', '1']
    """
    if hasattr(table, "iloc"):
        for name in table.columns:
            kind = table[name].dtype
            ordered = list(kind.categories) if getattr(kind, "ordered", False) else None
            yield str(name), table[name].to_numpy(), ordered
    elif isinstance(table, dict):
        yield from ((str(name), np.asarray(values), None) for name, values in table.items())
    elif getattr(getattr(table, "dtype", None), "names", None):
        yield from ((name, table[name], None) for name in table.dtype.names)
    else:
        array = np.asarray(table)
        if array.ndim != 2:
            raise ValueError(
                "table: expected a data frame, a dict of columns or an array (rows, columns), got an array of shape "
                f"{array.shape}"
            )
        yield from ((str(i), values, None) for i, values in enumerate(array.T))
