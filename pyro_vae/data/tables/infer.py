"""The type of a column inferred from its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyro_vae.data.tables.cells import Cells, Numbers, places_of
from pyro_vae.data.tables.column import Column
from pyro_vae.data.tables.dates import Dates, Durations, of_times, read_dates
from pyro_vae.data.tables.labels import Binary, Categorical, Labels, Ordinal, in_order
from pyro_vae.data.tables.numbers import Count, Integer, Positive, Real
from pyro_vae.data.tables.ranged import EXACT, SMALLEST
from pyro_vae.data.tables.values import blank, plain, whole
from pyro_vae.data.tables.written import read_numbers

__all__ = ["infer"]

#: Columns of at most this many consecutive integers are inferred to be ordinal.
MAX_ORDINAL = 10
#: Text columns with more labels than this are refused if most rows have a label of their own.
MANY = 20
#: Smallest ratio of variance to mean of counts: that of a Poisson is 1.
LEAST_DISPERSION = 0.25
#: Integers from here on are not inferred to be counts: samples of a negative binomial could overflow.
MOST = 2**31
#: Largest float32: numbers of at least this size are refused.
LARGEST = float(np.finfo(np.float32).max)
#: Largest distance between neighbouring float32, in standard deviations, at which numbers have no origin.
COARSE = 1e-3


def infer(
    name: str,
    values: Any,
    categories: Sequence[Any] | None = None,
    *,
    ordered: bool = False,
    kind: type[Column] | None = None,
) -> Column:
    """Infer the type of a column from its values; missing ones are ignored.

    Booleans and two labels or two integers are Binary, other labels Categorical, or Ordinal where pandas has an order
    for them. Up to ten consecutive integers are Ordinal, other integers of at least 0 Count, unless they vary far less
    than counts do, and all other integers Integer. Dates and durations are Integer too, in their coarsest unit.
    Positive numbers are Positive, and all others Real. Text is a number if all of it can be read as numbers, with
    thousands separators, decimal commas, percent and currency signs. The guess can be wrong (a postcode is a
    label, not a Count): pass ``kind``, or replace the column.

    Args:
        name: name of the column
        values: of shape ``(n,)``
        categories: all labels, if the column is one of categories
        ordered: whether the categories are ordered from the lowest to the highest
        kind: the type, for a column that has it; its units are those of the values

    Returns:
        The column, with units and a range from the values.

    Raises:
        ValueError: there is no value, most values are numbers and some are not, nearly every row has a text of its
            own, or ``kind`` cannot have the values.

    Example:
        >>> infer("visits", np.array([0, 3, 40]))
        Count(name='visits', scale=14.333333333333334, high=42.0)
    """
    try:
        return infer_plain(name, plain(values, labels=categories is not None), categories, ordered, kind)
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from error


def infer_plain(
    name: str, values: np.ndarray, categories: Sequence[Any] | None, ordered: bool, kind: type[Column] | None
) -> Column:
    """Infer the type of a column from :func:`plain` values."""
    present = values[~blank(values)]
    if not len(present):
        raise ValueError("expected at least one value, all are missing. Leave the column out")
    if categories is not None:
        two = Binary if len(categories) == 2 else Categorical
        kind = kind or (Ordinal if ordered and len(categories) > 1 else two)
        if issubclass(kind, Labels):
            return kind(name, tuple(categories))
    if kind is not None and issubclass(kind, Binary | Categorical):
        return kind.of(name, present, Numbers())
    logical = present.dtype.kind == "b" or all(isinstance(value, bool) for value in present.tolist())
    if logical and kind is None:
        return Binary(name, (False, True))
    cells, numbers = (Numbers(), present.astype(int)) if logical else read(values, kind)
    if cells is None:
        kind = kind or (Binary if len(set(present.tolist())) == 2 else Categorical)
        return kind.of(name, present, Numbers())
    found = numbers.astype(float)
    if (wrong := ~(np.abs(found) < LARGEST)).any():
        row = int(np.flatnonzero(~blank(values))[wrong.argmax()])
        raise ValueError(
            f"expected finite numbers below {LARGEST:.2g}, got {found[wrong.argmax()]:.3g} in row {row}. Leave such "
            "cells empty, or divide the column"
        )
    if 0 < np.abs(found).max() < SMALLEST:
        raise ValueError(
            f"expected numbers that a float32 holds, got none of at least {SMALLEST:.2g}. Multiply the column"
        )
    kind = kind or kind_of(found, len(set(numbers.tolist())), cells)
    if issubclass(kind, Labels):
        return kind.of(name, np.array(in_order(numbers.tolist()), object), cells)
    if isinstance(cells, Numbers):
        rounded = whole(numbers) or issubclass(kind, Count | Integer)
        cells = Numbers(rounded, origin_of(numbers, kind), None if rounded else places_of(numbers))
        kind = Real if cells.origin and kind is Positive else kind
        found = cells.read(numbers)
    return kind.of(name, found, cells)


def read(values: np.ndarray, kind: type[Column] | None) -> tuple[Cells | None, np.ndarray]:
    """Return how the values of a column are written, or None for labels; and the present values as numbers."""
    gone = blank(values)
    if values.dtype.kind in "Mm":
        cells = of_times(values)
        return cells, cells.read(values[~gone])
    if values.dtype.kind != "O":
        return Numbers(), values[~gone]
    readings = {"numbers": read_numbers(values, codes=kind is None)}
    if readings["numbers"][0] is None:
        readings["dates"] = read_dates(values)
    for cells, _, found in readings.values():
        if cells is not None:
            present = plain([value for value in found if value is not None])
            return cells, cells.read(present) if isinstance(cells, Dates) else present
    check_text(values, {what: wrong for what, (_, wrong, _) in readings.items()}, kind)
    return None, values[~gone]


def check_text(values: np.ndarray, wrong: Mapping[str, np.ndarray], kind: type[Column] | None) -> None:
    """Raise if a text column is mostly numbers or dates, if ``kind`` needs them, or if it has too many labels."""
    gone = blank(values)
    present, different = int((~gone).sum()), len(set(values[~gone].tolist()))
    what = min(wrong, key=lambda name: wrong[name].sum())
    if wrong[what].sum() < present / 2 and different > MAX_ORDINAL if kind is None else not issubclass(kind, Labels):
        row = int(wrong[what].argmax())
        raise ValueError(
            f"expected {what}, got {values[row]!r} in row {row}. Leave such cells empty, or choose the type "
            "Categorical"
        )
    if kind is None and different > max(MANY, present / 2):
        row = int((~gone).argmax())
        raise ValueError(
            f"expected labels or numbers, got {different:,} different texts in {present:,} rows, such as "
            f"{values[row]!r} in row {row}. Leave the column out, or choose its type"
        )


def kind_of(numbers: np.ndarray, n: int, cells: Cells) -> type[Column]:
    """Return the type of a column of finite numbers, ``n`` of them different before they became floats."""
    distinct = np.unique(numbers)
    low, high = distinct[0], distinct[-1]
    if isinstance(cells, Dates | Durations):
        return Integer
    if (distinct != np.round(distinct)).any():
        return Positive if np.float32(low) > 0 and n > 1 else Real
    if n == 2:
        return Binary
    if 2 < n <= MAX_ORDINAL and high - low == n - 1:
        return Ordinal
    # percentages have an upper limit, which counts do not have
    unlimited = "%" not in getattr(cells, "suffix", "")
    counts = unlimited and n > 1 and 0 <= low <= high < MOST and numbers.var() >= LEAST_DISPERSION * numbers.mean()
    return Count if counts else Integer


def origin_of(numbers: np.ndarray, kind: type[Column]) -> int | float:
    """Return what to subtract from numbers so that a float32 holds the rest, 0 if it holds the numbers."""
    low, high = numbers.min(), numbers.max()
    largest = max(abs(float(low)), abs(float(high)))
    if issubclass(kind, Count) or (low == high and not whole(numbers)):
        return 0
    if whole(numbers):
        return (int(low) + int(high)) // 2 if largest > EXACT else 0
    spread = float(numbers.astype(float).std())
    return float(numbers.astype(float).mean()) if np.spacing(np.float32(largest)) > COARSE * spread > 0 else 0
