"""Arrays and tensors in memory, and lists of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.arrays import fill_masked
from pyro_vae.data.readers.columns import TABLE_OPTIONS
from pyro_vae.data.readers.reader import Content, Options, Reader

__all__ = ["ARRAY", "ROWS"]


def is_array(source: Any) -> bool:
    """Whether an object is an array of numpy without named columns, a tensor, or an array of another library."""
    if getattr(getattr(source, "dtype", None), "names", None):
        return False
    other = hasattr(source, "__array__") and hasattr(source, "shape") and not hasattr(source, "columns")
    return isinstance(source, (Tensor, np.ndarray)) or other


def load_array(name: str, source: Any, options: Options) -> Content:
    """Return an array, with NaN for masked entries."""
    return Content(rows=fill_masked(source) if isinstance(source, (Tensor, np.ndarray)) else np.asarray(source))


ARRAY = Reader(
    source="array of numpy (masked and memory-mapped ones too), tensor, array of another library",
    becomes=(
        "one example per row; images where the shape is that of images; sequences `(n, steps, channels)` with "
        '`layout="tc"`; integers of at least 0 are counts'
    ),
    takes=is_array,
    load=load_array,
    options=("layout", "levels"),
)


def is_rows(source: Any) -> bool:
    """Whether an object is a list of rows of numbers, or of arrays or tensors."""
    if not isinstance(source, list) or not source:
        return False
    first = source[0]
    row = isinstance(first, (list, tuple)) and all(isinstance(v, (int, float, str, type(None))) for v in first)
    return row or isinstance(first, (Tensor, np.ndarray))


def load_rows(name: str, source: list[Any], options: Options) -> Content:
    """Return rows of numbers as an array, and rows with text as columns."""
    shapes = {tuple(row.shape) if hasattr(row, "shape") else (len(row),) for row in source}
    if len(shapes) > 1:
        raise ValueError(
            f"{name}: expected rows of one shape, got shapes such as {', '.join(map(str, sorted(shapes)[:3]))}. "
            "Pass sequences of different lengths as arrays of shape (steps, channels)"
        )
    if isinstance(source[0], Tensor):
        return Content(rows=torch.stack(source))
    if isinstance(source[0], np.ndarray):
        return Content(rows=np.ma.stack(source) if any(map(np.ma.isMaskedArray, source)) else np.stack(source))
    flat = {type(value) for row in source for value in row}
    if flat <= {bool, int, float}:
        return Content(rows=np.array(source))
    return Content(columns={str(i): list(column) for i, column in enumerate(zip(*source, strict=True))})


ROWS = Reader(
    source="list of rows (lists of numbers or text; arrays or tensors of one shape)",
    becomes="an array, or a table if there is text or None",
    takes=is_rows,
    load=load_rows,
    options=("layout", "levels", *TABLE_OPTIONS),
)
