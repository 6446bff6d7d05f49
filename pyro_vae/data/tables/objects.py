"""Columns of Python objects that are read as another type: decimals, bytes and times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import numpy as np

from pyro_vae.data.tables.values import NOTHING, objects

__all__ = ["converted"]


def converted(values: Any) -> tuple[Any, Callable[[Any], Any] | None]:
    """Return objects as values that :func:`plain` reads without a loss, and how an object is made from one of them.

    Decimals become text, which keeps all digits; bytes become text, and times with a zone become those of UTC.

    Returns:
        The values, and a function for the way back, None if it is not needed.

    Raises:
        ValueError: bytes are not UTF-8, or the column has dates and times, or times with and without a zone.

    Example:
        >>> values, make = converted([Decimal("0.10"), None])
        >>> values.tolist(), make("0.25")
        (['0.10', None], Decimal('0.25'))
    """
    cells = values.filled(None) if isinstance(values, np.ma.MaskedArray) else values
    cells = [None if type(v).__name__ in NOTHING else v for v in cells]
    kinds = {type(v) for v in cells} - {type(None)}
    if kinds == {Decimal}:
        return objects(None if v is None else str(v) for v in cells), Decimal
    if kinds == {bytes}:
        return objects(None if v is None else text_of(v, row) for row, v in enumerate(cells)), str.encode
    if kinds and all(issubclass(kind, date) for kind in kinds):
        return times(cells)
    return values, None


def text_of(value: bytes, row: int) -> str:
    """Return bytes as text."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"expected text in UTF-8, got {value!r} in row {row}. Decode the column first") from error


def times(cells: Sequence[Any]) -> tuple[Any, Callable[[Any], Any] | None]:
    """Return dates or times, in UTC if they have zones, and how they are made from datetime64."""
    first = next(v for v in cells if v is not None)
    for row, v in enumerate(cells):
        if v is None:
            continue
        if isinstance(v, datetime) != isinstance(first, datetime):
            raise ValueError(f"expected dates or times, got both: {first} and {v} in row {row}. Convert them to times")
        if isinstance(v, datetime) and (v.tzinfo is None) != (first.tzinfo is None):
            raise ValueError(
                f"expected times with a zone or without one, got both: {first} and {v} in row {row}. Add the zone"
            )
    zone = timezone.utc if isinstance(first, datetime) and first.tzinfo is not None else None
    if all(type(v) in (datetime, date, type(None)) for v in cells):
        return objects(cells), None if zone is None else lambda v: v.astype("M8[us]").item().replace(tzinfo=zone)
    import pandas  # these are its timestamps, which have nanoseconds

    found = pandas.to_datetime(objects(cells), utc=zone is not None)
    return found.tz_localize(None).to_numpy(), lambda v: pandas.Timestamp(v, tz=zone)
