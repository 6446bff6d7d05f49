"""The columns of tables of every kind, and back: data frames, dicts, structured arrays and arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_vae._util.validation import nearest
from pyro_vae.data.tables.objects import converted
from pyro_vae.data.tables.values import blank, objects, plain

__all__ = ["Part", "columns_of", "entries_of", "frame_of", "known", "restored", "some"]

#: Columns that a message names.
SHOWN = 20


@dataclass(frozen=True)
class Part:
    """One column of a table as it was passed.

    Attributes:
        key: its name in the table, of any type
        values: its values, as a plain array
        kind: the dtype of numpy or pandas that it had
        categories: all labels of a column of categories, otherwise None
        ordered: whether the categories are ordered
        text: whether the values are text
        make: makes an object of the column from one of ``values``; None if they are the same
    """

    key: Hashable
    values: np.ndarray
    kind: Any
    categories: Sequence[Any] | None = None
    ordered: bool = False
    text: bool = False
    make: Callable[[Any], Any] | None = None

    @property
    def name(self) -> str:
        """The name of the column."""
        return str(self.key)


def columns_of(table: Any, leave_out: Collection[str] = ()) -> list[Part]:
    """Return the columns of a table, without those of some names, whose values are not read.

    Args:
        table: a data frame, a dict of columns, a structured array, or an array ``(rows, columns)``
        leave_out: names of columns

    Raises:
        ValueError: ``table`` is none of these, two columns have one name, or a column cannot be read.
    """
    entries = entries_of(table)
    places: dict[str, list[int]] = {}
    for i, (key, _) in enumerate(entries):
        places.setdefault(str(key), []).append(i)
    twice = {name: at for name, at in places.items() if len(at) > 1}
    if twice:
        listed = some([f"{name!r} of columns {some([*map(str, at)])}" for name, at in twice.items()])
        raise ValueError(f"table: expected columns of different names, got {listed}, counted from 0. Rename them")
    known("leave_out", leave_out, list(places))
    parts = [of_values(key, values) for key, values in entries if str(key) not in leave_out]
    if entries and not parts:
        raise ValueError("leave_out: expected at least one other column, got the names of all columns. Keep one")
    lengths = [f"{part.name} {len(part.values)}" for part in parts]
    if len({len(part.values) for part in parts}) > 1:
        raise ValueError(f"table: expected columns of one length, got {some(lengths)}")
    if not parts or not len(parts[0].values):
        raise ValueError(f"table: expected rows and columns, got {len(parts)} columns without rows")
    return parts


def entries_of(table: Any) -> list[tuple[Hashable, Any]]:
    """Return the name and the values of each column of a table."""
    if is_frame(table):
        return [(key, table.iloc[:, i]) for i, key in enumerate(table.columns)]
    if isinstance(table, dict):
        return list(table.items())
    if names := getattr(getattr(table, "dtype", None), "names", None):
        return [(name, table[name]) for name in names]
    named = hasattr(table, "columns") or hasattr(table, "iloc")  # of another package; an array would lose the names
    array = table if named or isinstance(table, np.ma.MaskedArray) else np.asarray(table)
    if named or array.ndim != 2:
        got = f"an array of shape {array.shape}" if hasattr(table, "shape") and not named else f"a {kind_of(table)}"
        raise ValueError(
            f"table: expected a data frame of pandas, a dict of columns or an array (rows, columns), got {got}. Pass "
            "a dict with the values of each column by its name"
        )
    return [(str(i), values) for i, values in enumerate(array.T)]


def known(what: str, names: Collection[str], own: Sequence[str]) -> None:
    """Raise unless all names are those of columns."""
    columns = set(own)
    unknown = [name for name in names if name not in columns]
    if unknown:
        raise ValueError(
            f"{what}: expected names of columns ({some(own)}), got {some(unknown)}{nearest(unknown[0], own)}"
        )


def some(names: Sequence[str]) -> str:
    """Return names as text, the first of many."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def is_frame(table: Any) -> bool:
    """Return whether a table is a data frame of pandas."""
    return hasattr(table, "iloc") and hasattr(table, "columns")


def kind_of(value: Any) -> str:
    """Return the name of the type of a value, with its package."""
    cls = type(value)
    package = cls.__module__.partition(".")[0]
    return cls.__name__ if package == "builtins" else f"{package} {cls.__name__}"


def of_values(key: Hashable, values: Any) -> Part:
    """Return a column of an array, a sequence or a series."""
    if hasattr(values, "iloc"):
        return of_series(key, values)
    if type(getattr(values, "dtype", None)).__module__.startswith("pandas"):  # an index or an array of pandas
        import pandas

        return of_series(key, pandas.Series(values))
    if isinstance(values, list | tuple):
        values = [None if value is np.ma.masked else value for value in values]
    try:
        if isinstance(values, str):
            raise ValueError("expected one value per row, got text")
        kind = values.dtype if isinstance(values, np.ndarray) else np.asarray(values).dtype
        values, make = converted(values) if kind.kind == "O" else (values, None)
        found = plain(values)
    except ValueError as error:
        raise ValueError(f"column {str(key)!r}: {error}") from error
    return Part(key, found, kind, text=is_text(found), make=make)


def of_series(key: Hashable, series: Any) -> Part:
    """Return a column of pandas."""
    kind, categories, ordered = series.dtype, None, False
    name = type(kind).__name__
    if name == "CategoricalDtype":
        categories, ordered = kind.categories.tolist(), bool(kind.ordered)
        values = series.to_numpy(object)
    elif name == "DatetimeTZDtype":
        values = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    elif name == "PeriodDtype":
        values = np.where(series.isna(), None, series.array.asi8.astype(object))
    else:
        values = series.to_numpy() if isinstance(kind, np.dtype) else series.to_numpy(object)
    try:
        values, make = converted(values) if isinstance(kind, np.dtype) and kind.kind == "O" else (values, None)
        found = plain(values, labels=categories is not None)
    except ValueError as error:
        raise ValueError(f"column {str(key)!r}: {error}") from error
    return Part(key, found, kind, categories, ordered, categories is None and is_text(found), make)


def is_text(values: np.ndarray) -> bool:
    """Return whether a column has text only."""
    return values.dtype.kind == "O" and all(value is None or isinstance(value, str) for value in values.tolist())


def alike(source: np.ndarray, values: np.ndarray, *, text: bool) -> np.ndarray:
    """Return decoded values as objects with None if the source has objects, and as text if it is text."""
    if source.dtype.kind != "O":
        return values
    found = zip(values.tolist(), blank(values), strict=True)
    return objects(None if gone else str(value) if text else value for value, gone in found)


def restored(part: Part, values: np.ndarray) -> Any:
    """Return decoded values of a column in the dtype that it had: an array, or a series of pandas.

    A sample beyond the largest integer of the dtype becomes that integer.
    """
    numpy = part.kind if isinstance(part.kind, np.dtype) else getattr(part.kind, "numpy_dtype", np.dtype(np.int64))
    values = limited(values, numpy) if isinstance(numpy, np.dtype) and numpy.kind in "iu" else values
    if isinstance(part.kind, np.dtype):
        gone = blank(values)
        if part.kind.kind == "O" and values.dtype.kind in "Mm":  # days would become dates without a time
            values = values.astype(part.values.dtype)
        if part.make is not None:
            return objects(None if g else part.make(v) for v, g in zip(values, gone, strict=True))
        if part.kind.kind in "OSU" and gone.any():
            return np.where(gone, None, values.astype(object))
        if part.kind.kind in "SU":  # new text may be longer than that of the table
            text = values.astype(part.kind.kind)
            return text.astype(max(text.dtype, part.kind, key=lambda kind: kind.itemsize))
        # numpy's integers and booleans cannot be missing
        return values.astype(float if part.kind.kind in "iub" and gone.any() else part.kind)
    import pandas

    name = type(part.kind).__name__
    if name == "PeriodDtype":
        ordinals = np.where(blank(values), pandas.NaT._value, values).astype(np.int64)
        return pandas.Series(pandas.PeriodIndex.from_ordinals(ordinals, freq=part.kind.freq))
    if name == "DatetimeTZDtype":
        return pandas.Series(values).dt.tz_localize("UTC").astype(part.kind)
    return pandas.Series(values, dtype=object).astype(part.kind)


def limited(values: np.ndarray, kind: np.dtype[Any]) -> np.ndarray:
    """Return integers within the limits of a dtype; other values as they are."""
    ends = np.iinfo(kind)
    low, high = int(ends.min), int(ends.max)
    if values.dtype.kind in "iu":
        return np.clip(values, max(low, np.iinfo(values.dtype).min), min(high, np.iinfo(values.dtype).max))
    if values.dtype.kind != "O":
        return values
    return objects(min(max(v, low), high) if isinstance(v, int) and not isinstance(v, bool) else v for v in values)


def frame_of(frame: type, names: Any, columns: Sequence[Any]) -> Any:
    """Return columns as a data frame of this class, with names of any type as an index of pandas."""
    import pandas

    # a frame would make strings of objects that are text
    return frame({i: pandas.Series(c, dtype=c.dtype) for i, c in enumerate(columns)}).set_axis(names, axis=1)
