"""Minibatches from data of any supported kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from pyro_vae._util.index import in_rows_of
from pyro_vae._util.validation import check_int
from pyro_vae._util.weights import mean_one
from pyro_vae.data import Split
from pyro_vae.data.lazy import LazyRows
from pyro_vae.data.read import arguments, to_fit
from pyro_vae.data.tables import Column as TableColumn
from pyro_vae.programs.program import Program
from pyro_vae.training.data.column import CHUNK_BYTES, Column, OnDevice, argument_name, to_tensors
from pyro_vae.training.data.loader import as_loader
from pyro_vae.training.data.lookahead import Batch, joined, num_batches
from pyro_vae.training.data.order import BLOCK, Shuffled
from pyro_vae.training.data.prefetch import ReadAhead
from pyro_vae.training.ranks.distributed import Ranks

__all__ = ["Batches"]

#: Largest number of rows that are checked at once.
CHUNK = 4096


class Batches:
    """Minibatches ``(x, *context)`` of tensors on a device, in an order that depends only on seed and epoch.

    With several ranks ``batch_size`` is the size of the joined batch, of which each rank reads its share; a DataLoader
    or an ``IterableDataset`` must itself give each rank its own part of the data. Rows of a memmap are read ahead by
    threads, and only a few batches of them are in memory.

    Args:
        data: any source of ``pyro_vae.data.read``; an object with ``x`` and ``transform`` such as a split of
            ``pyro_vae.data.load``; or a tuple of these (x and context). A ``DataLoader`` keeps its own order and batch
            size
        batch_size: examples per batch; the last batch may be smaller. A single last example, also that of a loader or
            stream, joins the batch before it
        seed: seed of the order
        shuffle: whether to shuffle the examples in each epoch
        device: device of the batches; the CPU by default
        dtype: type that floating-point numbers are converted to
        ranks: the processes that train together; this process alone by default
        name: name of the argument that ``data`` was passed as, for error messages
        weights: one number of at least 0 per example; with weights each batch has them after x and context, of mean 1
            over the examples in use. Those of weight 0 are left out
        columns: columns of the table that the program was made for

    Raises:
        TypeError: the data has none of the kinds above.
        ValueError: the data is empty, its columns have different lengths, or it is not numeric.

    Example:
        >>> [len(x) for (x,) in Batches(torch.zeros(10, 3), batch_size=4).epoch(0)]
        [4, 4, 2]
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
        ranks: Ranks | None = None,
        name: str = "data",
        weights: Any = None,
        columns: Sequence[TableColumn] = (),
    ) -> None:
        self.batch_size, self.seed, self.shuffle = check_int("batch_size", batch_size), seed, shuffle
        self.device, self.dtype, self.name = device or torch.device("cpu"), dtype, name
        self.ranks = Ranks(0, 1) if ranks is None else ranks
        self.columns: list[Column] = []
        self.weighted = weights is not None
        self.loader: Iterable[Any] | None = None
        self.ahead: ReadAhead | None = None
        self.used: np.ndarray | None = None
        parts = []
        for i, source in enumerate(arguments(data)):
            source = in_rows_of(data, argument_name(i), source) if i else source
            parts += to_fit(argument_name(i), source, () if i else columns)
        if len(parts) == 1 and isinstance(parts[0].x, (DataLoader, IterableDataset)):
            self.loader = as_loader(parts[0].x, self.batch_size, ranks=self.ranks.size, weighted=self.weighted)
            return
        if self.batch_size < self.ranks.size:
            raise ValueError(
                f"batch_size: expected at least {self.ranks.size}, one example for each rank, got {batch_size}"
            )
        self.columns = [
            Column(argument_name(i), part, device=self.device, dtype=dtype) for i, part in enumerate(parts)
        ]
        sizes = {len(column) for column in self.columns}
        if len(sizes) > 1:
            lengths = ", ".join(f"{column.name}: {len(column)}" for column in self.columns)
            raise ValueError(f"{name}: expected columns of the same length, got {lengths}")
        if 0 in sizes:
            raise ValueError(f"{name}: expected at least one example, got an empty array or data set")
        if self.weighted:
            scaled = mean_one(in_rows_of(data, "weights", weights), len(self.columns[0]))
            self.columns.append(Column("weights", Split(scaled), device=self.device, dtype=dtype))
            self.used = None if scaled.all() else scaled.nonzero().flatten().numpy()
        if any(isinstance(column.rows, LazyRows) for column in self.columns):
            self.ahead = ReadAhead(self.read)

    @classmethod
    def of(cls, program: Program, data: Any, **options: Any) -> Batches:
        """Return batches on the device and in the type of a program, in the codes of its table if it has one."""
        columns = getattr(getattr(program, "likelihood", None), "columns", ())
        return cls(data, device=program.device, dtype=program.dtype, columns=columns, **options)

    def __len__(self) -> int:
        """Return the number of examples in an epoch; 0 if a stream does not know it."""
        if self.columns:
            return len(self.columns[0]) if self.used is None else len(self.used)
        data = self.loader.dataset
        return len(data) if hasattr(data, "__len__") else 0

    def examples(self, batch: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return x and context of a batch, without the weights."""
        return batch[:-1] if self.weighted else batch

    @property
    def stored(self) -> bool:
        """Whether all rows are in memory or in a file, so that they are checked before training.

        Rows that must be computed, as those of a Dataset or a loader, are checked as they are read.
        """
        return bool(self.columns) and all(isinstance(column.rows, (Tensor, LazyRows)) for column in self.columns)

    @property
    def shared(self) -> tuple[int, int] | str:
        """What must be equal on all ranks: nothing for a loader, which reads the rank's own part of the data."""
        return (len(self), self.batch_size) if self.columns else "loader"

    @property
    def on_device(self) -> OnDevice | None:
        """The data for a step that selects its own rows; None if batches are read outside of the step."""
        if not self.columns or self.ranks.size > 1 or not all(column.in_step for column in self.columns):
            return None
        return OnDevice([column.rows for column in self.columns], [column.transform for column in self.columns])

    @property
    def steps(self) -> int | None:
        """Number of batches in an epoch; None if a stream does not know it."""
        if self.columns:
            return num_batches(len(self), self.batch_size)
        if not len(self):
            return None
        size, whole = self.loader.batch_size, type(self.loader.batch_sampler) is BatchSampler
        if size is None or not whole or self.loader.drop_last:
            return len(self.loader)
        return num_batches(len(self.loader.sampler), size)

    def epoch(self, epoch: int, start: int = 0, before: Callable[[int], object] | None = None) -> Iterator[Batch]:
        """Return the batches of one epoch, starting with batch number ``start``.

        The batches before it are skipped without being read, except those of a loader, which calls ``before`` with the
        number of each batch before it is read.
        """
        if self.loader is None:
            return self.in_order(epoch, start)
        for sampler in (self.loader.sampler, self.loader.batch_sampler):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
        read = (Batch(to_tensors(batch, self.device, self.dtype)) for batch in iter(self.loader))
        batches = self.ranks.padded(joined(read, before))
        for _ in islice(batches, start):
            pass
        return batches

    def in_order(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of one epoch from the columns."""
        steps = range(start, self.steps)
        self.advise(random=self.shuffle)
        rows = (part for rows, sizes in self.blocks(epoch, steps) for part in np.split(rows, np.cumsum(sizes)[:-1]))
        for step, batch in zip(steps, self.take(rows), strict=True):
            first, end = self.share(step)
            batch.counts = first < end
            yield batch

    def selected(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the row numbers of each batch of one epoch, for a step that reads :attr:`on_device`.

        The row numbers of many steps are copied to the device at once, so that no step waits for a copy.
        """
        for rows, sizes in self.blocks(epoch, range(start, self.steps)):
            for selection in torch.from_numpy(rows).to(self.device, non_blocking=True).split(sizes):
                yield Batch((selection,))

    def blocks(self, epoch: int, steps: range) -> Iterator[tuple[np.ndarray, list[int]]]:
        """Yield the row numbers that this rank reads in many steps, and how many of them belong to each step."""
        order = Shuffled(len(self), seed=self.seed, epoch=epoch)
        together = max(1, BLOCK // self.batch_size)
        for i in range(0, len(steps), together):
            shares = [self.share(step) for step in steps[i : i + together]]
            # an empty share is padded with one row
            parts = [np.arange(first, max(end, first + 1)) for first, end in shares]
            positions = np.concatenate(parts)
            yield self.rows(order.rows(positions) if self.shuffle else positions), [len(part) for part in parts]

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers of rows from their positions among those with a weight."""
        return positions if self.used is None else self.used[positions]

    def share(self, step: int) -> tuple[int, int]:
        """Return start and end of this rank's share of a batch, as positions in the order of the epoch."""
        start = step * self.batch_size
        return self.ranks.share(start, len(self) if step == self.steps - 1 else start + self.batch_size)

    def chunks(self) -> Iterator[Batch]:
        """Yield all rows of this rank's share, in the order of the data, in chunks; nothing for a loader."""
        if not self.columns:
            return iter(())
        self.advise(random=False)
        row_bytes = max(1, *(column.row_bytes for column in self.columns))
        size = min(CHUNK, max(self.batch_size, CHUNK_BYTES // row_bytes))
        first, end = self.ranks.share(0, len(self))
        return self.take(self.rows(np.arange(i, min(i + size, end))) for i in range(first, end, size))

    def take(self, rows: Iterable[np.ndarray]) -> Iterator[Batch]:
        """Yield the batch of each array of row numbers."""
        for read in self.ahead(rows) if self.ahead else map(self.read, rows):
            yield Batch(part for column, found in zip(self.columns, read, strict=True) for part in column.take(found))

    def read(self, index: np.ndarray) -> list[np.ndarray | Tensor]:
        """Return for each column the rows that must be read from a file; from any thread."""
        return [column.read(index) for column in self.columns]

    def advise(self, *, random: bool) -> None:
        """Announce to the operating system how files will be read."""
        for column in self.columns:
            if isinstance(column.rows, LazyRows):
                column.rows.advise(random=random)

    def close(self) -> None:
        """Stop the threads that read ahead."""
        if self.ahead is not None:
            self.ahead.close()
            self.advise(random=False)
