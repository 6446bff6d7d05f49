"""Rows that are read, or made dense, when a batch needs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["LazyRows", "Selected"]


class LazyRows(ABC):
    """Rows of numbers that are not in memory as a whole, such as those of a sparse matrix.

    Attributes:
        shape: number of rows and shape of a row
        row_bytes: bytes of one row once it is read

    Example:
        >>> import torch
        >>> class Squares(LazyRows):
        ...     shape, row_bytes = (5, 1), 4
        ...     def read(self, index):
        ...         return torch.from_numpy(index[:, None].astype(np.float32) ** 2)
        >>> len(Squares()), Squares()[3], Squares()[1:3][:].tolist()
        (5, tensor([9.]), [[1.0], [4.0]])
    """

    shape: tuple[int, ...]
    row_bytes: int

    @abstractmethod
    def read(self, index: np.ndarray) -> Tensor:
        """Return these rows as a tensor on the CPU; from any thread."""

    def advise(self, *, random: bool) -> None:  # noqa: B027 (most rows need no advice)
        """Announce whether the rows will be read in random order."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: Any) -> Any:
        """Return one row as a tensor, several rows as rows that are not read yet, and all (``[:]``) as a tensor."""
        if isinstance(part, slice) and part == slice(None):
            return self.read(np.arange(len(self)))
        if isinstance(part, slice):
            return Selected(self, np.arange(len(self))[part])
        if getattr(part, "ndim", 0) or isinstance(part, list):
            return Selected(self, np.arange(len(self))[np.asarray(part)])
        return self.read(np.array([range(len(self))[part]]))[0]


class Selected(LazyRows):
    """Some rows of others, in any order.

    Args:
        rows: the others
        index: numbers of the rows

    Example:
        >>> import torch
        >>> class Squares(LazyRows):
        ...     shape, row_bytes = (5, 1), 4
        ...     def read(self, index):
        ...         return torch.from_numpy(index[:, None].astype(np.float32) ** 2)
        >>> Selected(Squares(), np.array([4, 0])).read(np.array([1, 0])).tolist()
        [[0.0], [16.0]]
    """

    def __init__(self, rows: LazyRows, index: np.ndarray) -> None:
        self.rows, self.index = rows, index
        self.shape, self.row_bytes = (len(index), *rows.shape[1:]), rows.row_bytes
        self.dtype = getattr(rows, "dtype", None)

    def read(self, index: np.ndarray) -> Tensor:
        """Return these rows."""
        return self.rows.read(self.index[index])

    def advise(self, *, random: bool) -> None:
        """Announce the order; rows that were selected may be in any order."""
        self.rows.advise(random=True)
