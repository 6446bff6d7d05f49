"""Arrays of any kind as tensors, with NaN for entries that a mask hides."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.masked import MaskedTensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, default_collate

__all__ = ["as_labels", "as_tensor", "collate", "fill_masked", "keep_masks"]


def fill_masked(x: Any) -> Any:
    """Return numbers in a masked array of numpy or torch with NaN for masked entries, all other objects unchanged.

    Masked integers become floats. ``np.asarray`` and ``torch.as_tensor`` would drop the mask in silence and return the
    values below it, such as -9999.

    Example:
        >>> fill_masked(np.ma.masked_equal([1, -9999], -9999)), fill_masked("text")
        (array([ 1., nan]), 'text')
    """
    if isinstance(x, MaskedTensor):
        return torch.where(x.get_mask(), x.get_data(), torch.nan)
    if not isinstance(x, np.ma.MaskedArray) or x.dtype.kind not in "biufc":
        return x
    return x.astype(np.result_type(x.dtype, np.float32)).filled(np.nan) if np.ma.is_masked(x) else x.data


def as_tensor(x: Any) -> Tensor:
    """Return data of a user as a tensor, with NaN for masked entries.

    Example:
        >>> as_tensor(np.ma.masked_invalid([1.0, np.inf]))
        tensor([1., nan], dtype=torch.float64)
    """
    return torch.as_tensor(writable(fill_masked(x)))


def writable(x: Any) -> Any:
    """Return a copy of an array that is read-only, whose memory torch cannot share; any other object unchanged."""
    return x.copy() if isinstance(x, np.ndarray) and not x.flags.writeable else x


def as_labels(name: str, labels: Any) -> np.ndarray:
    """Return class numbers or labels as an array, or raise a ValueError if one is missing.

    Example:
        >>> as_labels("y", torch.tensor([0, 2, 1]))
        array([0, 2, 1])
    """
    found = np.asarray(fill_masked(labels.detach().cpu() if isinstance(labels, Tensor) else labels))
    if found.dtype.kind == "f" and np.isnan(found).any():
        missing = int(np.isnan(found).sum())
        raise ValueError(f"{name}: expected a label for each example, got {missing} NaN or masked. Leave them out")
    return found


def collate(batch: Any) -> Any:
    """Return the batch of torch's ``default_collate``, which drops masks, with NaN for masked entries."""
    try:
        # torch warns about read-only arrays, although it copies them here
        return default_collate(tree_map(lambda x: writable(fill_masked(x)), batch) if is_special(batch) else batch)
    except (RuntimeError, TypeError) as error:
        raise TypeError(
            "data: expected a data set of tensors or arrays of one shape, which can be joined into a batch, got: "
            f"{str(error).splitlines()[0]}. Return such tensors, or pass a DataLoader with your own collate_fn"
        ) from error


def is_special(x: Any) -> bool:
    """Whether a part of a batch is a masked or read-only array; much faster than ``tree_map``, once per batch."""
    if isinstance(x, (list, tuple, deque)):
        return any(map(is_special, x))
    if isinstance(x, dict):
        return any(map(is_special, x.values()))
    return isinstance(x, (np.ma.MaskedArray, MaskedTensor)) or (isinstance(x, np.ndarray) and not x.flags.writeable)


def keep_masks(loader: DataLoader) -> DataLoader:
    """Return a loader that uses :func:`collate` in place of ``default_collate``."""
    if loader.collate_fn is not default_collate:
        return loader
    loader = copy.copy(loader)
    loader.collate_fn = collate
    return loader
