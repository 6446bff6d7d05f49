"""Columns by name in memory: dicts, structured arrays and data frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyro_vae.data.readers.reader import Content, Options, Reader, from_package
from pyro_vae.data.readers.sequences import is_ragged

__all__ = ["COLUMNS", "FRAME", "TABLE_OPTIONS", "by_name", "of_arrow"]

#: The arguments of ``read`` that apply to tables.
TABLE_OPTIONS = ("label", "types", "columns", "leave_out", "covariates", "keep_empty", "keep_index")


def is_columns(source: Any) -> bool:
    """Whether an object is a dict of arrays or lists, or a structured array."""
    if isinstance(source, dict):
        sized = [hasattr(v, "__len__") and not isinstance(v, (str, bytes, dict)) for v in source.values()]
        return bool(sized) and all(sized)
    return bool(getattr(getattr(source, "dtype", None), "names", None))


def by_name(name: str, arrays: Mapping[Any, Any]) -> Content:
    """Return arrays by name as examples with labels (``x`` or ``X``, and ``y``), or as the columns of a table.

    Three axes with ``lengths`` or ``inputs``, lists of arrays of different lengths, and several arrays ``(steps,
    channels)`` as ``numpy.savez(path, *arrays)`` writes them are sequences.
    """
    key = next((k for k in ("x", "X") if k in arrays), next(iter(arrays)) if len(arrays) == 1 else None)
    steps = {k: arrays[k] for k in ("lengths", "inputs") if k in arrays}
    if key is not None and (is_ragged(arrays[key]) or (steps and np.ndim(arrays[key]) == 3)):
        return Content(rows=arrays[key], labels=arrays.get("y"), sequences=True, **steps)
    if key is not None and np.ndim(arrays[key]) > 1:
        return Content(rows=arrays[key], labels=arrays.get("y"))
    if key is None and not steps and all(np.ndim(v) == 2 for v in arrays.values()):
        return Content(rows=[*arrays.values()], sequences=True)
    shapes = {k: np.shape(v) for k, v in arrays.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        got = ", ".join(f"{k} {shape}" for k, shape in shapes.items()) or "no array"
        raise ValueError(
            f"{name}: expected an array x with one example per row, or arrays of one length as columns, got {got}"
        )
    return Content(columns=dict(arrays))


def load_columns(name: str, source: Any, options: Options) -> Content:
    """Return a dict of columns."""
    if isinstance(source, dict):
        return by_name(name, source)
    return Content(columns={key: source[key] for key in source.dtype.names})


COLUMNS = Reader(
    source="dict of columns, dict with the arrays `x` and `y`, structured array of numpy",
    becomes="a table; or an array with labels, or sequences `x` with their `lengths` and the `inputs` of each step",
    takes=is_columns,
    load=load_columns,
    options=(*TABLE_OPTIONS, "layout", "levels"),
)


def load_frame(name: str, source: Any, options: Options) -> Content:
    """Return a frame of pandas as it is, and others as a dict of columns."""
    if from_package(source, "pandas"):
        return Content(columns=source)
    if from_package(source, "pyarrow"):
        return Content(columns=of_arrow(source))
    source = source.collect() if hasattr(source, "collect") else source
    return Content(columns={c.name: values(c, c.null_count(), c.to_list) for c in source.get_columns()})


def of_arrow(table: Any) -> dict[str, Any]:
    """Return the columns of a table of pyarrow."""
    names = table.column_names
    return {n: values(c, c.null_count, c.to_pylist) for n, c in zip(names, table.columns, strict=True)}


def values(column: Any, missing: int, as_list: Any) -> Any:
    """Return a column as an array, or as a list with None for missing values where numpy has none."""
    found = None if missing else column.to_numpy()
    return found if found is not None and found.dtype.kind in "fiub" else as_list()


FRAME = Reader(
    source="data frame of pandas or polars, table of pyarrow",
    becomes="a table; categories, booleans, dates and nullable types keep their meaning",
    takes=lambda source: (
        from_package(source, "pandas", "DataFrame")
        or from_package(source, "polars", "DataFrame", "LazyFrame")
        or from_package(source, "pyarrow", "Table")
    ),
    load=load_frame,
    options=TABLE_OPTIONS,
)
