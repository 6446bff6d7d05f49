"""The content of data files as tensors: arrays or tables, labels as class numbers, and three splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.dataset import Dataset, Split
from pyro_vae.data.files import Values
from pyro_vae.data.tables.values import blank, plain

__all__ = ["array_of", "check_rows", "encode_labels", "kind_of", "split_rows", "table_of", "to_tensor"]

#: Fewest rows of a file to train on: one tenth is for validation, one tenth for testing.
MIN_ROWS = 10


def array_of(content: Values) -> np.ndarray | None:
    """Return the array whose rows are examples, or None for the columns of a table."""
    if isinstance(content, np.ndarray):
        return content
    found = content.get("x", next(iter(content.values())) if len(content) == 1 else None)
    return found if found is not None and found.ndim > 1 else None


def table_of(path: str, content: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of a table, or raise if the arrays cannot be columns."""
    shapes = {name: values.shape for name, values in content.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "no array"
        raise ValueError(
            f"{path}: expected an array x with one example per row, or arrays of one length as columns, got {got}"
        )
    return dict(content)


def to_tensor(path: str, array: np.ndarray) -> Tensor:
    """Return an array of examples as float32."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected an array of numbers, got numpy dtype {array.dtype}")
    if array.ndim < 2 or not array.size:
        raise ValueError(f"{path}: expected an array with one example per row, got shape {array.shape}")
    if array.dtype == np.uint8 and array.max() > 1:
        raise ValueError(
            f"{path}: expected numbers, got bytes up to {array.max()}. Divide grey levels by 255, or save counts as "
            "int64"
        )
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def kind_of(x: Tensor) -> str:
    """Return ``"binary"``, ``"grey"`` (in [0, 1]) or ``"real"``, whichever fits the values of an array."""
    observed = x[~torch.isnan(x)]
    if ((observed == 0) | (observed == 1)).all():
        return "binary"
    return "grey" if observed.min() >= 0 and observed.max() <= 1 else "real"


def check_rows(path: str, x: Tensor) -> None:
    """Raise if all values of a row are missing."""
    empty = torch.isnan(x).flatten(1).all(1)
    if empty.any():
        raise ValueError(
            f"{path}: expected at least one value in each row, got none in {int(empty.sum()):,} of {len(x):,} rows "
            f"(row {int(empty.nonzero()[0])}, counted from 0). Remove these rows"
        )


def encode_labels(path: str, labels: np.ndarray, classes: list[Any] | None) -> tuple[Tensor, list[Any]]:
    """Return class numbers, -1 for a missing label, and the classes in the order of their numbers."""
    if labels.ndim != 1:
        raise ValueError(f"{path}: expected one label per row, got labels of shape {labels.shape}")
    labels = plain(labels)
    gone = blank(labels) | ((labels == -1) if labels.dtype.kind == "i" else False)
    known = labels[~gone].tolist()
    classes = sorted(set(known)) if classes is None else classes
    if len(classes) < 2 or not set(known) <= set(classes):
        raise ValueError(f"{path}: expected labels of two or more classes, got {sorted(set(known))[:5]}")
    numbers = torch.full((len(labels),), -1)
    numbers[torch.from_numpy(~gone)] = torch.tensor([classes.index(label) for label in known])
    return numbers, classes


def split_rows(path: str, rows: Split) -> Dataset:
    """Shuffle rows in the same way in every run and split them: 80% train, 10% valid, 10% test."""
    n = len(rows)
    if n < MIN_ROWS:
        raise ValueError(f"{path}: expected {MIN_ROWS} rows or more to train, validate and test on, got {n}")
    rows = rows[torch.from_numpy(np.random.default_rng(0).permutation(n))]
    tenth = max(1, n // 10)
    return Dataset(path, rows[: n - 2 * tenth], rows[n - 2 * tenth : n - tenth], rows[n - tenth :])
