"""One argument of a program (x or a context variable), stored in any supported form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.arrays import as_tensor, collate, fill_masked
from pyro_vae.training.data.prefetch import Mapped

__all__ = ["CHUNK_BYTES", "Column", "OnDevice", "argument_name", "place", "to_tensors"]

#: Largest number of bytes that are checked at once.
CHUNK_BYTES = 2**24


class Column:
    """One argument of the program, with one example per row.

    Args:
        name: name of the argument, for error messages
        source: a tensor, array, memmap, data frame, data set, or a split with ``x`` and ``transform``
        device: device of the batches
        dtype: type that floating-point numbers are converted to
    """

    def __init__(self, name: str, source: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.device, self.dtype = name, device, dtype
        # a data frame has a method `transform` too, and an attribute `x` if a column has that name
        frame = type(source).__module__.partition(".")[0] == "pandas"
        split = not frame and hasattr(source, "x") and hasattr(source, "transform")
        self.transform: Callable[[Tensor], Tensor] | None = source.transform if split else None
        rows = fill_masked(source.x if split else source.to_numpy() if frame else source)
        if frame and rows.dtype.kind not in "fiub":
            raise ValueError(
                f"{name}: expected a table whose columns are all numeric, got columns of other types. Pass "
                f"pyro_vae.data.Table({name}).x, to a program whose likelihood is Heterogeneous"
            )
        if isinstance(rows, np.ndarray) and rows.dtype.kind not in "fiub":
            raise ValueError(f"{name}: expected an array of floating-point numbers, got numpy dtype {rows.dtype}")
        if isinstance(rows, np.ndarray) and not isinstance(rows, np.memmap):
            shared = rows.flags.writeable and rows.dtype.isnative and all(stride >= 0 for stride in rows.strides)
            # torch cannot share memory that is read-only, byte-swapped or reversed
            rows = torch.from_numpy(rows if shared else np.array(rows, rows.dtype.newbyteorder("=")))
        # an example of a data set may have any size, but a batch of them fits into memory
        self.row_bytes = CHUNK_BYTES
        if isinstance(rows, np.memmap):
            rows = Mapped(rows, pin=device.type == "cuda")
            self.row_bytes = rows.row_bytes
        elif isinstance(rows, Tensor):
            rows = place(rows.detach(), device, dtype)
            self.row_bytes = rows[:1].nbytes if rows.dim() else 1
        elif isinstance(rows, (str, bytes, Mapping)) or not (
            hasattr(rows, "__getitem__") and hasattr(rows, "__len__")
        ):
            whole = ". Pass one of its splits, such as its `.train`" if hasattr(rows, "train") else ""
            raise TypeError(
                f"{name}: expected a tensor, numpy array, memmap, torch Dataset or DataLoader, or a tuple of "
                f"arrays (x, context), got {type(rows).__name__}{whole}"
            )
        self.rows = rows

    def __len__(self) -> int:
        if isinstance(self.rows, Tensor) and not self.rows.dim():
            raise ValueError(f"{self.name}: expected a batch with one example per row, got a single number")
        return len(self.rows)

    @property
    def in_step(self) -> bool:
        """Whether a training step can select the rows itself: they are on the device, and so is any transform."""
        known = self.transform is None or getattr(self.transform, "draws_bits", False)
        return isinstance(self.rows, Tensor) and known

    def read(self, index: np.ndarray) -> np.ndarray | Tensor:
        """Return rows of a file, on the CPU, or the index itself if there is nothing to read; from any thread."""
        return self.rows.read(index) if isinstance(self.rows, Mapped) else index

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
