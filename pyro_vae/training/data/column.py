"""One argument of a program in the data, in whatever form people keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from pyro_vae.training.data.prefetch import Mapped

if TYPE_CHECKING:
    from pyro_vae.training.data.batches import Batches

__all__ = ["CHUNK_BYTES", "Column", "name_of"]

#: Bytes that are checked at once, at most.
CHUNK_BYTES = 2**24


class Column:
    """One argument of the program, a row a datum."""

    def __init__(self, name: str, source: Any, batches: Batches) -> None:
        self.name, self.batches = name, batches
        # a data frame has an attribute `transform`, and one `x` where a column is called so
        frame = type(source).__module__.partition(".")[0] == "pandas"
        split = not frame and hasattr(source, "x") and hasattr(source, "transform")
        self.transform: Callable[[Tensor], Tensor] | None = source.transform if split else None
        rows = source.x if split else source.to_numpy() if frame else source
        if frame and rows.dtype.kind not in "fiub":
            raise ValueError(
                f"{name}: expected a table of numbers alone, got columns of other types: give the rows of "
                f"pyro_vae.data.Table({name}).x to a program whose likelihood is Heterogeneous"
            )
        if isinstance(rows, np.ndarray) and rows.dtype.kind not in "fiub":
            raise ValueError(f"{name}: expected an array of floating-point numbers, got numpy dtype {rows.dtype}")
        if isinstance(rows, np.ndarray) and not isinstance(rows, np.memmap):
            rows = torch.from_numpy(rows if torch_takes(rows) else np.array(rows, rows.dtype.newbyteorder("=")))
        # an item of a Dataset may be of any size, but a batch of them is known to fit
        self.row_bytes = CHUNK_BYTES
        if isinstance(rows, np.memmap):
            rows = Mapped(rows, pin=batches.device.type == "cuda")
            self.row_bytes = rows.row_bytes
        elif isinstance(rows, Tensor):
            rows = batches.place(name, rows.detach())
            self.row_bytes = rows[:1].nbytes if rows.dim() else 1
        elif isinstance(rows, (str, bytes, Mapping)) or not (
            hasattr(rows, "__getitem__") and hasattr(rows, "__len__")
        ):
            raise TypeError(
                f"{name}: expected a tensor, numpy array, memmap, torch Dataset or DataLoader, or a tuple of "
                f"arrays (x, context), got {type(rows).__name__}"
            )
        self.rows = rows

    def __len__(self) -> int:
        if isinstance(self.rows, Tensor) and not self.rows.dim():
            raise ValueError(f"{self.name}: expected a batch with one datum a row, got a single number")
        return len(self.rows)

    @property
    def in_step(self) -> bool:
        """Whether a step can read the rows by itself: they lie on the device, and what changes them is known."""
        known = self.transform is None or getattr(self.transform, "draws_bits", False)
        return isinstance(self.rows, Tensor) and known

    def take(self, read: np.ndarray | Tensor) -> Sequence[Tensor]:
        """Return rows, as read from a file or by their index, on the device, drawn anew by a transform."""
        if isinstance(read, Tensor):
            found: Sequence[Tensor] = (self.batches.place(self.name, read),)
        elif isinstance(self.rows, Tensor):
            found = (self.rows[torch.from_numpy(read).to(self.rows.device)],)
        else:
            found = self.batches.collate(default_collate([self.rows[int(i)] for i in read]))
        if self.transform is None:
            return found
        return (self.transform(found[0]), *found[1:])


def torch_takes(rows: np.ndarray) -> bool:
    """Whether torch can use the memory of an array as it is: forwards, writable, in the byte order of the machine."""
    return rows.flags.writeable and rows.dtype.isnative and all(stride >= 0 for stride in rows.strides)


def name_of(position: int) -> str:
    """Return the name of an argument by which error messages call it."""
    return "x" if position == 0 else f"context[{position - 1}]"
