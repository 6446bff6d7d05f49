"""Guess the types of the columns of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pyro_vae.data.tables.types import Binary, Categorical, Column, Count, Ordinal, Positive, Real
from pyro_vae.data.tables.values import missing, numeric

__all__ = ["infer", "named", "schema"]

#: Columns of that many consecutive whole numbers or fewer are taken for grades.
GRADES = 10


def schema(table: Any) -> tuple[Column, ...]:
    """Infer the type of each column of a table; see :func:`infer`.

    Args:
        table: a data frame, a dict of columns, or an array ``(rows, columns)``

    Returns:
        One column for each of the table.

    Raises:
        ValueError: the table is none of these, or a column holds no value or a single label.

    Example:
        >>> [type(column).__name__ for column in schema({"height": [1.7, 1.9], "grade": [1, 2]})]
        ['Positive', 'Binary']
    """
    return tuple(infer(name, values, order) for name, values, order in named(table))


def infer(name: str, values: np.ndarray, order: Sequence[Any] | None = None) -> Column:
    """Infer the type of a column from its values, missing ones left out.

    Booleans and two labels or whole numbers are Binary, other labels Categorical, Ordinal where pandas knows an
    order; up to ten consecutive whole numbers Ordinal, other whole numbers from 0 on Count, positive numbers
    Positive, and all others Real. A guess can be wrong (a postcode is no Count): replace the column by another one.

    Args:
        name: what the column is called
        values: of shape ``(n,)``
        order: all labels from the lowest to the highest, if they have an order

    Returns:
        The column, with units taken from the values.

    Raises:
        ValueError: no value, or a single label.

    Example:
        >>> infer("visits", np.array([0, 3, 40]))
        Count(name='visits', scale=14.333333333333334)
    """
    present = values[~missing(values)]
    if not len(present):
        raise ValueError(f"column {name!r}: all of its values are missing")
    if order is not None:
        return Ordinal(name, tuple(order))
    if not numeric(present):
        labels = tuple(sorted(set(present.tolist()), key=str))
        return (Binary if len(labels) == 2 else Categorical)(name, labels)
    numbers = present.astype(float)
    distinct = np.unique(numbers)
    if not np.isfinite(numbers).all():
        raise ValueError(f"column {name!r}: expected finite numbers")
    if present.dtype == bool:
        return Binary(name, (False, True))
    whole = bool((distinct == np.round(distinct)).all())
    if whole and len(distinct) == 2:
        return Binary(name, tuple(int(v) for v in distinct))
    if whole and 2 < len(distinct) <= GRADES and distinct[-1] - distinct[0] == len(distinct) - 1:
        return Ordinal(name, tuple(int(v) for v in distinct))
    if whole and len(distinct) > 1 and distinct[0] >= 0:
        return Count(name, float(numbers.mean()))
    if len(distinct) > 1 and distinct[0] > 0:
        return Positive(name, *moments(np.log(numbers)))
    return Real(name, *moments(numbers))


def moments(numbers: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation, 1 for that of a constant."""
    return float(numbers.mean()), float(numbers.std()) or 1.0


def named(table: Any) -> Iterator[tuple[str, np.ndarray, Sequence[Any] | None]]:
    """Yield name, values and order (None for none) of each column of a data frame, a dict or an array.

    Args:
        table: a data frame, a dict of columns, or an array ``(rows, columns)``

    Returns:
        An iterator over name, values of shape ``(rows,)`` and order.

    Raises:
        ValueError: the table is none of these.

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
        for name, values in table.items():
            yield str(name), np.asarray(values), None
    elif getattr(getattr(table, "dtype", None), "names", None):
        for name in table.dtype.names:
            yield name, table[name], None
    else:
        array = np.asarray(table)
        if array.ndim != 2:
            raise ValueError(
                f"table: expected a data frame, a dict of columns or an array (rows, columns), got shape {array.shape}"
            )
        for i, values in enumerate(array.T):
            yield str(i), values, None
