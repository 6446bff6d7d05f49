"""Data of torch, and splits of this package."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, Dataset

from pyro_vae.data.readers.reader import Content, Options, Reader

__all__ = ["TORCH"]


def is_torch(source: Any) -> bool:
    """Whether an object is a DataLoader or Dataset of torch, or a class with the methods of one."""
    if isinstance(source, (DataLoader, Dataset)):
        return True
    plain = isinstance(source, (str, bytes, dict, tuple)) or hasattr(source, "dtype") or isinstance(source, type)
    return not plain and hasattr(source, "__getitem__") and hasattr(source, "__len__")


def load(name: str, source: Any, options: Options) -> Content:
    """Return the object itself: it is read batch by batch."""
    return Content(rows=source)


TORCH = Reader(
    source="`Dataset`, `IterableDataset`, `DataLoader` of torch: `x`, `(x, *context)` or dicts with `x`, then context",
    becomes="a stream: read, checked and converted batch by batch",
    takes=is_torch,
    load=load,
)
