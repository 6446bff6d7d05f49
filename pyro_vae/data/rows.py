"""Rows of data: labels as class numbers, and three splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data import files
from pyro_vae.data.dataset import Dataset, Split
from pyro_vae.data.tables.labels import in_order
from pyro_vae.data.tables.values import blank, plain

__all__ = ["check_rows", "encode_labels", "split_rows"]

#: Fewest rows of a file to train on: one tenth is for validation, one tenth for testing.
MIN_ROWS = 10
#: Most classes of which most rows may have one of their own.
MANY = 20


def check_rows(path: str, x: Tensor) -> None:
    """Raise if all values of a row are missing."""
    empty = torch.isnan(x).flatten(1).all(1)
    if empty.any():
        raise ValueError(
            f"{path}: expected at least one value in each row, got none in {int(empty.sum()):,} of {len(x):,} rows, "
            f"such as in {files.place(path, int(empty.nonzero()[0]))}. Remove these rows"
        )


def encode_labels(path: str, labels: np.ndarray, classes: list[Any] | None) -> tuple[Tensor, list[Any]]:
    """Return class numbers, -1 for a missing label, and the classes in the order of their numbers."""
    if labels.ndim != 1:
        raise ValueError(f"{path}: expected one label per row, got labels of shape {labels.shape}")
    labels = plain(labels)
    gone = blank(labels) | ((labels == -1) if labels.dtype.kind == "i" else False)
    if gone.any() and labels.dtype.kind == "f" and np.array_equal(labels[~gone], labels[~gone].round()):
        labels = np.where(gone, -1, labels).astype(np.int64)  # numpy and pandas have made floats of integers
    known = labels[~gone].tolist()
    found = len(set(known))
    if classes is None and found > max(MANY, len(known) / 2):
        raise ValueError(
            f"label: expected classes with several rows each, got {found:,} classes in {len(known):,} rows of {path}. "
            "Choose another column"
        )
    classes = list(in_order(known)) if classes is None else classes
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
