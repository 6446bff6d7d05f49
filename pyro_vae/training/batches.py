"""Batches from whatever people keep their data in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

__all__ = ["Batches"]

Batch = tuple[Tensor, ...]

#: Rows checked or converted at once, so that a memory-mapped array larger than memory is never read whole.
CHUNK = 4096


class Batches:
    """Tuples ``(x, *context)`` of tensors on a device, in an order that depends on seed and epoch alone.

    Args:
        data: a tensor, numpy array or memmap whose rows are data; an object with ``x`` and ``transform`` such as
            a split of ``pyro_vae.data.load``; a tuple of these (x and context); a torch ``Dataset`` or
            ``IterableDataset``; or a ``DataLoader``, which keeps its own order and batch size
        batch_size: data in a batch; the last one may be smaller
        seed: what the order depends on, beside the epoch
        shuffle: whether to shuffle
        device: where the batches go
        dtype: to which floating-point numbers are converted

    Raises:
        TypeError: data of no kind named above.
        ValueError: no data, columns of different length, numbers of no floating-point type.
    """

    def __init__(
        self,
        data: Any,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size: expected an int of at least 1, got {batch_size!r}")
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.device, self.dtype = device or torch.device("cpu"), dtype
        self.columns: list[Column] = []
        self.loader: Iterable[Any] | None = None
        if isinstance(data, (DataLoader, IterableDataset)):
            self.loader = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=batch_size)
        else:
            sources = data if isinstance(data, tuple) else (data,)
            self.columns = [Column(name_of(i), source, self) for i, source in enumerate(sources)]
            sizes = {len(column) for column in self.columns}
            if len(sizes) > 1:
                raise ValueError(
                    "data: expected columns of the same length, got "
                    f"{', '.join(f'{c.name}: {len(c)}' for c in self.columns)}"
                )
            if 0 in sizes:
                raise ValueError("data: expected at least one datum, got an empty array or data set")

    def __len__(self) -> int:
        """Return the number of data in an epoch; 0 where a stream does not tell."""
        if self.columns:
            return len(self.columns[0])
        data = self.loader.dataset
        return len(data) if hasattr(data, "__len__") else 0

    @property
    def steps(self) -> int | None:
        """Number of batches in an epoch, None where a stream does not tell."""
        if self.columns:
            return len(self.starts())
        return len(self.loader) if len(self) else None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of one epoch, from the one numbered ``start`` on.

        Batches before that are not made. Those of a loader are, at once, as only it knows what comes next.
        """
        if self.loader is None:
            return self.in_order(epoch, start)
        batches = iter(self.loader)
        for _ in islice(batches, start):
            pass
        return map(self.collate, batches)

    def in_order(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of one epoch from the columns."""
        n = len(self)
        order = torch.arange(n)
        if self.shuffle:
            # one stream an epoch, so that any epoch can be entered without the ones before it
            generator = torch.Generator().manual_seed(mix(self.seed, epoch))
            order = torch.randperm(n, generator=generator)
        starts = self.starts()
        for first, end in list(zip(starts, [*starts[1:], n], strict=True))[start:]:
            rows = order[first:end]
            yield tuple(part for column in self.columns for part in column.take(rows))

    def starts(self) -> list[int]:
        """Return where each batch of an epoch starts in its order."""
        n = len(self)
        starts = list(range(0, n, self.batch_size))
        if self.batch_size > 1 and len(starts) > 1 and n - starts[-1] == 1:
            # a single datum left over joins the batch before it: it has no batch statistics for a BatchNorm
            starts.pop()
        return starts

    def chunks(self) -> Iterator[Batch]:
        """Yield all rows in order, as they are stored, in chunks; nothing for a stream."""
        for start in range(0, len(self) if self.columns else 0, CHUNK):
            rows = torch.arange(start, min(start + CHUNK, len(self)))
            yield tuple(part for column in self.columns for part in column.take(rows))

    def collate(self, batch: Any) -> Batch:
        """Bring a batch of a loader into the form (x, *context)."""
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)
        return tuple(self.place(name_of(i), torch.as_tensor(part)) for i, part in enumerate(parts))

    def place(self, name: str, x: Tensor) -> Tensor:
        """Convert to the program's dtype and move to its device."""
        if x.is_floating_point():
            return x.to(self.device, self.dtype, non_blocking=True)
        # labels may be integers: the program says whether it takes them, x is checked there too
        return x.to(self.device, non_blocking=True)


class Column:
    """One argument of the program, a row a datum."""

    def __init__(self, name: str, source: Any, batches: Batches) -> None:
        self.name, self.batches = name, batches
        self.transform: Callable[[Tensor], Tensor] | None = getattr(source, "transform", None)
        rows = source.x if hasattr(source, "x") and hasattr(source, "transform") else source
        if type(rows).__module__.partition(".")[0] == "pandas":
            rows = rows.to_numpy()
        if isinstance(rows, np.ndarray) and rows.dtype.kind not in "fiub":
            raise ValueError(f"{name}: expected an array of floating-point numbers, got numpy dtype {rows.dtype}")
        if isinstance(rows, np.ndarray) and not isinstance(rows, np.memmap):
            # torch takes neither negative strides nor read-only memory without complaint
            rows = torch.from_numpy(np.array(rows))
        if isinstance(rows, Tensor):
            rows = batches.place(name, rows.detach())
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

    def take(self, index: Tensor) -> Sequence[Tensor]:
        """Return these rows as tensors on the device, drawn anew where the column has a transform."""
        if isinstance(self.rows, Tensor):
            found = (self.rows[index.to(self.rows.device)],)
        elif isinstance(self.rows, np.ndarray):
            found = (self.batches.place(self.name, torch.from_numpy(np.array(self.rows[index.numpy()]))),)
        else:
            found = self.batches.collate(default_collate([self.rows[int(i)] for i in index]))
        if self.transform is None:
            return found
        return (self.transform(found[0]), *found[1:])


def name_of(position: int) -> str:
    """Return the name of an argument by which error messages call it."""
    return "x" if position == 0 else f"context[{position - 1}]"


def mix(seed: int, epoch: int) -> int:
    """Return one seed for the order of one epoch, far from those of the epochs and seeds beside it."""
    return int(np.random.SeedSequence([seed % 2**63, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
