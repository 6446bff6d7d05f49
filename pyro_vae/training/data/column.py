"""One argument of a program (x or a context variable), stored in any supported form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.arrays import as_tensor, collate, fill_masked
from pyro_vae.data.arrays import as_rows, check_numbers
from pyro_vae.data.dataset import Levels
from pyro_vae.data.lazy import LazyRows
from pyro_vae.data.mapped import Mapped

__all__ = ["CHUNK_BYTES", "Column", "OnDevice", "argument_name", "place", "to_tensors"]

#: Largest number of bytes that are checked at once.
CHUNK_BYTES = 2**24


class Column:
    """One argument of the program, with one example per row.

    Args:
        name: name of the argument, for error messages
        source: a split of ``pyro_vae.data.read``: an object with ``x`` and ``transform``
        device: device of the batches
        dtype: type that floating-point numbers are converted to
    """

    def __init__(self, name: str, source: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.device, self.dtype = name, device, dtype
        self.transform: Callable[[Tensor], Tensor] | None = source.transform
        if isinstance(self.transform, Levels):
            self.transform = replace(self.transform, dtype=dtype)
        rows = fill_masked(source.x)
        # an example of a data set may have any size, but a batch of them fits into memory
        self.row_bytes = CHUNK_BYTES
        if isinstance(rows, np.ndarray) and not isinstance(rows, np.memmap):
            rows = as_rows(name, rows)
        if isinstance(rows, np.memmap):
            check_numbers(name, rows)
            rows = Mapped(rows, pin=device.type == "cuda")
        if isinstance(rows, LazyRows):
            self.row_bytes = rows.row_bytes
        elif isinstance(rows, Tensor):
            rows = place(rows.detach(), device, dtype)
            self.row_bytes = rows[:1].nbytes if rows.dim() else 1
        self.rows = rows

    def __len__(self) -> int:
        if isinstance(self.rows, Tensor) and not self.rows.dim():
            raise ValueError(f"{self.name}: expected a batch with one example per row, got a single number")
        return len(self.rows)

    @property
    def in_step(self) -> bool:
        """Whether a training step can select the rows itself: they are on the device, and so is any transform."""
        known = self.transform is None or isinstance(self.transform, Levels)
        known = known or getattr(self.transform, "draws_bits", False)
        return isinstance(self.rows, Tensor) and known

    def read(self, index: np.ndarray) -> np.ndarray | Tensor:
        """Return rows of a file, on the CPU, or the index itself if there is nothing to read; from any thread."""
        return self.rows.read(index) if isinstance(self.rows, LazyRows) else index

    def take(self, read: np.ndarray | Tensor) -> Sequence[Tensor]:
        """Return rows on the device, transformed.

        Args:
            read: what :meth:`read` returned

        Returns:
            One tensor, or several if a data set returns tuples ``(x, *context)``.
        """
        if isinstance(read, Tensor):
            taken: Sequence[Tensor] = (place(read, self.device, self.dtype),)
        elif isinstance(self.rows, Tensor):
            taken = (self.rows[torch.from_numpy(read).to(self.rows.device)],)
        else:
            taken = to_tensors(collate([self.rows[int(i)] for i in read]), self.device, self.dtype)
        return taken if self.transform is None else (self.transform(taken[0]), *taken[1:])


class OnDevice:
    """Data that is on the device as a whole, so that a compiled step can select its own rows.

    Args:
        columns: x and context, with one example per row
        transforms: for each column the function that transforms a batch, such as sampling of binary values from
            grey levels; None for no transform
    """

    def __init__(self, columns: Sequence[Tensor], transforms: Sequence[Callable[[Tensor], Tensor] | None]) -> None:
        self.columns, self.transforms = list(columns), transforms

    def read(self, rows: Tensor, columns: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the batch ``(x, *context)`` of these rows; ``columns`` are used in place of those of this object."""
        return tuple(
            column.index_select(0, rows) if transform is None else transform(column.index_select(0, rows))
            for column, transform in zip(columns, self.transforms, strict=True)
        )


def place(x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Move a tensor to the device, and convert floating-point numbers; integers may be labels and stay integers."""
    # moved first: a copy from pinned memory is asynchronous only if it converts nothing
    x = x.to(device, non_blocking=True)
    return x.to(dtype) if x.is_floating_point() else x


def to_tensors(batch: Any, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return a batch of a loader or data set as tensors ``(x, *context)`` on the device."""
    if isinstance(batch, Mapping):
        if "x" not in batch:
            raise ValueError(f"data: expected 'x' among the names of an example, got {', '.join(map(str, batch))}")
        batch = (batch["x"], *(value for name, value in batch.items() if name != "x"))
    parts = batch if isinstance(batch, (tuple, list)) else (batch,)
    return tuple(place(to_tensor(argument_name(i), part), device, dtype) for i, part in enumerate(parts))


def to_tensor(name: str, part: Any) -> Tensor:
    """Return one part of a batch as a tensor."""
    try:
        return as_tensor(part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"data: expected tensors, or tuples (x, *context) of them, from a loader or data set, got "
            f"{type(part).__name__} for {name}. Return tensors from the data set, or convert in collate_fn"
        ) from error


def argument_name(position: int) -> str:
    """Return the name that error messages use for an argument of the program."""
    return "x" if position == 0 else f"context[{position - 1}]"
