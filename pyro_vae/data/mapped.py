"""Rows of files larger than memory: memory-mapped arrays, and arrays of HDF5 and Zarr."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.lazy import LazyRows

__all__ = ["LARGE", "Mapped", "Stored"]

#: Arrays in files of more bytes are read by batch, all others at once.
LARGE = 2**30

#: Bytes of a file that may stay in memory before its pages are released.
RESIDENT = 2**28

#: Bytes around a row that the system may map with it: its page cache holds files in blocks of up to this size.
AROUND = 2**21


class Mapped(LazyRows):
    """The rows of a memory-mapped array, few of which stay in memory.

    Args:
        array: the memmap
        pin: whether to return pinned memory, from which copies to a GPU are asynchronous
    """

    def __init__(self, array: np.memmap, *, pin: bool = False) -> None:
        self.array, self.pin = array.view(np.ndarray), pin
        self.map, self.shape, self.dtype = releasable(array), array.shape, array.dtype
        self.row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        self.read_bytes = 0

    def advise(self, *, random: bool) -> None:
        """Announce to the operating system how the file will be read: in random order, or sequentially."""
        if self.map is not None:
            self.map.madvise(mmap.MADV_RANDOM if random else mmap.MADV_NORMAL)

    def read(self, index: np.ndarray) -> Tensor:
        """Return copies of these rows, on the CPU; from any thread."""
        rows = torch.from_numpy(np.take(self.array, index, axis=0))
        # a race between threads only shifts the moment at which the pages are released
        self.read_bytes += len(index) * (self.row_bytes + AROUND)
        if self.map is not None and self.read_bytes > RESIDENT:
            self.read_bytes = 0
            self.map.madvise(mmap.MADV_DONTNEED)
        return rows.pin_memory() if self.pin else rows


def releasable(array: np.memmap) -> mmap.mmap | None:
    """Return the memory map behind an array if its pages can be released without loss, else None."""
    # writes to a copy-on-write map exist only in its pages
    if array.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


class Stored(LazyRows):
    """The rows of an array of h5py or zarr, which are read from its file in their order there.

    Args:
        array: the array
    """

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.dtype = array, tuple(array.shape), array.dtype
        self.row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:])))

    def read(self, index: np.ndarray) -> Tensor:
        """Return these rows, on the CPU."""
        # h5py takes increasing numbers of different rows, and a slice in far less time
        rows, back = np.unique(index, return_inverse=True)
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
            found = self.array[int(rows[0]) : int(rows[-1]) + 1]
        else:
            found = self.array.oindex[rows] if hasattr(self.array, "oindex") else self.array[rows]
        return torch.from_numpy(np.asarray(found)[back])
