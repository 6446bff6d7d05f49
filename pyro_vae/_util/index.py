"""The index of pandas: values in the rows of a data frame."""

from __future__ import annotations

from typing import Any

__all__ = ["in_rows_of"]


def in_rows_of(data: Any, name: str, values: Any) -> Any:
    """Return values of pandas in the order of the rows of a data frame with the same index; others unchanged.

    Args:
        data: a data frame, what ``pyro_vae.data.read`` made of one, any other data with one example per row, or a
            tuple that begins with one of these
        name: name of the argument, for error messages
        values: one value or row per example

    Raises:
        ValueError: the index is neither that of the data frame nor, for other data, 0 to n - 1.

    Example:
        >>> pandas = __import__("pytest").importorskip("pandas")
        >>> frame = pandas.DataFrame({"a": [1, 2, 3]}, index=["x", "y", "z"])
        >>> in_rows_of(frame, "weights", pandas.Series([7, 8, 9], index=["z", "y", "x"])).tolist()
        [9, 8, 7]
    """
    if not hasattr(values, "iloc"):
        return values
    data = data[0] if isinstance(data, tuple) and data else data
    table = getattr(data, "table", data)
    rows = data.index if hasattr(data, "iloc") else getattr(table, "_index", None)
    if rows is None:
        rows = type(values.index)(range(len(values)))
    if values.index.equals(rows):
        return values
    if rows.is_unique and values.index.is_unique and set(rows) == set(values.index):
        return values.loc[rows]
    raise ValueError(
        f"{name}: expected the index of the rows of the data (0, 1, 2, ... where they have none), got another one: "
        f"{', '.join(map(repr, values.index[:3].tolist()))}, ... Pass {name}.to_numpy() to take them by position"
    )
