"""The values of one column as a plain array, with None, NaN or NaT where one is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from pyro_vae._util.arrays import fill_masked

__all__ = ["blank", "check_read", "each", "is_blank", "objects", "plain", "same", "unread", "whole"]

#: Text without a value, in lower case: the markers of pandas, a question mark and a hyphen.
BLANK = {"", "-", "?", "#n/a", "#n/a n/a", "#na", "<na>", "n/a", "na", "nan", "-nan", "nat", "null"}
BLANK |= {"1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
#: Names of the types of missing values, so that pandas is not imported.
NOTHING = {"NoneType", "NAType", "NaTType", "MaskedConstant"}


def is_blank(text: str) -> bool:
    """Return whether a cell of text holds no value; ``none`` in lower case can be a label."""
    text = text.strip()
    return text == "None" or text.lower() in BLANK


def plain(values: Any, *, labels: bool = False) -> np.ndarray:
    """Return the values of a column as an array of one of few kinds.

    Args:
        values: an array of any kind, masked arrays included, or a sequence, of shape ``(n,)``
        labels: whether text is a label whatever it says, as in a column of categories

    Returns:
        Floats with NaN, integers, booleans, datetime64 (of UTC) or timedelta64 with NaT; or objects: integers,
        booleans, text or other labels, with None where a value is missing.

    Raises:
        ValueError: a value is neither number, text, time nor label.
    """
    if isinstance(values, np.ma.MaskedArray):
        gone = np.ma.getmaskarray(values)
        values = fill_masked(values) if values.dtype.kind in "fc" else np.where(gone, None, values.data.astype(object))
    array = np.asarray(values)
    if array.dtype.kind == "U" and not isinstance(values, np.ndarray):
        array = objects(values)  # numpy has made text of all numbers in the sequence
    if array.ndim != 1:
        raise ValueError(f"expected one value per row, got an array of shape {array.shape}")
    if array.dtype.kind in "fiubMm":
        return array
    if array.dtype.kind not in "OUS":
        raise ValueError(
            f"expected numbers, text or dates, got numpy dtype {array.dtype}. Split or convert the column"
        )
    found = [one(value, labels, row) for row, value in enumerate(array.tolist())]
    kinds = {type(value) for value in found} - {type(None)}
    if labels or not kinds:
        return objects(found)
    if kinds <= {datetime} or kinds <= {date} or kinds <= {timedelta}:
        return np.array(found, {datetime: "M8[us]", date: "M8[D]", timedelta: "m8[us]"}[kinds.pop()])
    if kinds == {float} or kinds == {int, float}:
        return np.array(found, float)
    if kinds == {int} and None not in found and all(abs(value) < 2**63 for value in found):
        return np.array(found, np.int64)
    return np.array(found, bool) if kinds == {bool} and None not in found else objects(found)


def one(value: Any, labels: bool, row: int) -> Any:
    """Return one value: None if it is missing, a number of Python, text, a time without a zone, or a label."""
    if type(value) is str:  # most values of a file
        return None if not labels and is_blank(value) else value
    if type(value).__name__ in NOTHING or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, (bytes, np.bytes_)):
        value = value.decode("utf-8")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return one(str(value), labels, row)
    if labels or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (Real, Decimal)):
        return float(value)
    if isinstance(value, datetime):
        naive = value if value.tzinfo is None else value.astimezone(timezone.utc).replace(tzinfo=None)
        return datetime(*naive.timetuple()[:6], naive.microsecond)
    try:
        hash(value)
    except TypeError as error:
        raise ValueError(
            f"expected numbers, text or dates, got a {type(value).__name__} in row {row}. Leave the column out"
        ) from error
    return value


def each(function: Callable[[str], Any], values: Iterable[Any], other: Callable[[Any], Any]) -> list[Any]:
    """Return the results of a function for each text, computed once per text, and of another one for all else."""
    known: dict[str, Any] = {}
    found = []
    for value in values:
        if not isinstance(value, str):
            found.append(other(value))
            continue
        if value not in known:
            known[value] = function(value)
        found.append(known[value])
    return found


def unread(values: np.ndarray, found: Iterable[Any]) -> np.ndarray:
    """Return a mask of the present values of a :func:`plain` array for which a reader found None."""
    return np.array([result is None for result in found], bool) & ~blank(values)


def check_read(expected: str, values: np.ndarray, found: Sequence[Any]) -> None:
    """Raise if a reader found None for a present value of a :func:`plain` array; the message names the first one."""
    wrong = unread(values, found)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"expected {expected}, got {values.tolist()[row]!r} in row {row}")


def objects(values: Iterable[Any]) -> np.ndarray:
    """Return values as an array of objects."""
    found = list(values)
    array = np.empty(len(found), object)
    array[:] = found
    return array


def blank(values: np.ndarray) -> np.ndarray:
    """Return a mask of the missing values of a :func:`plain` array."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind in "Mm":
        return np.isnat(values)
    return np.equal(values, None).astype(bool) if values.dtype.kind == "O" else np.zeros(len(values), bool)


def whole(values: np.ndarray) -> bool:
    """Return whether all present values of a :func:`plain` array are integers by type."""
    if values.dtype.kind == "O":
        return all(type(value) is int for value in values[~blank(values)].tolist())
    return values.dtype.kind in "iu"


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return where two :func:`plain` arrays have the same value, or none."""
    return (blank(a) & blank(b)) | np.asarray(a == b, bool)
