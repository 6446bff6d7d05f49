"""Values of a column, with holes, as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["as_numbers", "is_number", "missing", "numeric"]


def missing(values: np.ndarray) -> np.ndarray:
    """Return where a value is missing: None, NaN or what pandas has for it."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind != "O":
        return np.zeros(len(values), bool)
    kinds = {"NAType", "NaTType", "NoneType"}
    return np.array([type(v).__name__ in kinds or (isinstance(v, float) and v != v) for v in values], bool)


def numeric(present: np.ndarray) -> bool:
    """Whether all values are numbers."""
    if present.dtype.kind != "O":
        return present.dtype.kind in "fiub"
    return all(isinstance(v, (int, float, np.number)) for v in present)


def as_numbers(values: np.ndarray) -> np.ndarray:
    """Return numbers with NaN for what is missing."""
    gone = missing(values)
    return np.where(gone, np.nan, np.where(gone, 0, values).astype(float))


def is_number(value: Any) -> bool:
    """Whether a value stands for a number, or for one that is missing."""
    try:
        as_numbers(np.array([value], object))
    except (TypeError, ValueError):
        return False
    return True
