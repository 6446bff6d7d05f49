"""Batches from whatever people keep their data in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.programs.program import Program
from pyro_vae.training.data.column import CHUNK_BYTES, Column, name_of
from pyro_vae.training.data.on_device import OnDevice
from pyro_vae.training.data.order import BLOCK, Shuffled
from pyro_vae.training.data.prefetch import Mapped, ReadAhead
from pyro_vae.training.ranks.distributed import Ranks

__all__ = ["Batch", "Batches"]

#: Rows that are checked at once, at most.
CHUNK = 4096


class Batch(tuple[Tensor, ...]):
    """The tensors ``(x, *context)`` of a batch.

    Attributes:
        counts: False for a datum that is no part of the batch: it keeps a rank without a share in step with the others
    """

    counts = True


class Batches:
    """Tuples ``(x, *context)`` of tensors on a device, in an order that depends on seed and epoch alone.

    With several ranks ``batch_size`` is that of their joined batch, of which each reads its share; a DataLoader or a
    stream is taken as the rank's own part of the data. Of a memmap the rows of a few batches are read ahead, in
    threads, and nothing else stays in memory.

    Args:
        data: a tensor, numpy array or memmap whose rows are data; an object with ``x`` and ``transform`` such as
            a split of ``pyro_vae.data.load``; a tuple of these (x and context); a torch ``Dataset`` or
            ``IterableDataset``; or a ``DataLoader``, which keeps its own order and batch size
        batch_size: data in a batch; the last one may be smaller
        seed: what the order depends on, beside the epoch
        shuffle: whether to shuffle
        device: where the batches go
        dtype: to which floating-point numbers are converted
        ranks: the processes that train together; this one alone by default

    Raises:
        TypeError: data of no kind named above.
        ValueError: no data, columns of different length, numbers of no floating-point type.

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
    ) -> None:
        check_int("batch_size", batch_size)
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.device, self.dtype = device or torch.device("cpu"), dtype
        self.ranks = Ranks(0, 1) if ranks is None else ranks
        self.columns: list[Column] = []
        self.loader: Iterable[Any] | None = None
        self.ahead: ReadAhead | None = None
        if isinstance(data, (DataLoader, IterableDataset)):
            self.loader = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=batch_size)
            if self.ranks.size > 1:
                refuse_unshared(self.loader)
        else:
            if batch_size < self.ranks.size:
                raise ValueError(
                    f"batch_size: expected at least {self.ranks.size}, the ranks that share a batch, got {batch_size}"
                )
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
            if any(isinstance(column.rows, Mapped) for column in self.columns):
                self.ahead = ReadAhead(self.read)

    def __len__(self) -> int:
        """Return the number of data in an epoch; 0 where a stream does not tell."""
        if self.columns:
            return len(self.columns[0])
        data = self.loader.dataset
        return len(data) if hasattr(data, "__len__") else 0

    @property
    def shared(self) -> tuple[int, int] | str:
        """What several ranks must have in common: a loader is the rank's own part of the data."""
        return (len(self), self.batch_size) if self.columns else "loader"

    @property
    def on_device(self) -> OnDevice | None:
        """The data as a step can read them by itself; None where they are read before it."""
        if not self.columns or self.ranks.size > 1 or not all(column.in_step for column in self.columns):
            return None
        return OnDevice([column.rows for column in self.columns], [column.transform for column in self.columns])

    @property
    def steps(self) -> int | None:
        """Number of batches in an epoch, None where a stream does not tell."""
        if not self.columns:
            return len(self.loader) if len(self) else None
        n, size = len(self), self.batch_size
        # a single datum left over joins the batch before it: it has no batch statistics for a BatchNorm
        alone = size > 1 and n > size and n % size == 1
        return n // size if alone else -(-n // size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of one epoch, from the one numbered ``start`` on.

        Batches before that are not made. Those of a loader are, at once, as only it knows what comes next.
        """
        if self.loader is None:
            return self.in_order(epoch, start)
        for sampler in (self.loader.sampler, self.loader.batch_sampler):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
        batches = self.ranks.in_step(map(self.collate, iter(self.loader)))
        for _ in islice(batches, start):
            pass
        return batches

    def in_order(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of one epoch from the columns."""
        steps = range(start, self.steps)
        self.expect(random=self.shuffle)
        for step, batch in zip(steps, self.take(self.order(epoch, steps)), strict=True):
            batch.counts = self.share(step)[0] < self.share(step)[1]
            yield batch

    def selected(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the rows of each batch of one epoch, for a step that reads :attr:`on_device`.

        They are brought to the device for many steps at once, so that no step waits for a copy.
        """
        for rows, sizes in self.blocks(epoch, range(start, self.steps)):
            for selection in torch.from_numpy(rows).to(self.device, non_blocking=True).split(sizes):
                yield Batch((selection,))

    def order(self, epoch: int, steps: range) -> Iterator[np.ndarray]:
        """Yield for each step the rows that this rank reads."""
        for rows, sizes in self.blocks(epoch, steps):
            yield from np.split(rows, np.cumsum(sizes)[:-1])

    def blocks(self, epoch: int, steps: range) -> Iterator[tuple[np.ndarray, list[int]]]:
        """Yield the rows that this rank reads in many steps, and how many in each."""
        order = Shuffled(len(self), seed=self.seed, epoch=epoch)
        together = max(1, BLOCK // self.batch_size)
        for i in range(0, len(steps), together):
            shares = [self.share(step) for step in steps[i : i + together]]
            # one row where there is no share
            parts = [np.arange(first, max(end, first + 1)) for first, end in shares]
            positions = np.concatenate(parts)
            yield order.rows(positions) if self.shuffle else positions, [len(part) for part in parts]

    def share(self, step: int) -> tuple[int, int]:
        """Return first position and end of this rank's share of a batch, in the order of the epoch."""
        start = step * self.batch_size
        end = len(self) if step == self.steps - 1 else start + self.batch_size
        return self.ranks.share(start, end)

    def check(self, program: Program, *, progress: bool = False) -> None:
        """Refuse data that the program cannot train on; of a stream nothing is read.

        Raises:
            ValueError: of ``program.check``.
        """
        first = self.ranks.share(0, len(self))[0]
        # a transform may draw random numbers
        with fork_rng(self.device, self.seed):
            for chunk in progress_bar(
                self.chunks(), desc="checking the data", delay=1, leave=False, progress=progress
            ):
                try:
                    program.check(*chunk)
                except ValueError as error:
                    if first:
                        raise ValueError(f"{error} (counted from row {first:,} of the data)") from error
                    raise
                first += len(chunk[0])

    def chunks(self) -> Iterator[Batch]:
        """Yield all rows (of several ranks, each its part) as they are stored, in chunks; nothing for a stream."""
        if not self.columns:
            return iter(())
        self.expect(random=False)
        row_bytes = max(1, *(column.row_bytes for column in self.columns))
        size = min(CHUNK, max(self.batch_size, CHUNK_BYTES // row_bytes))
        first, end = self.ranks.share(0, len(self))
        return self.take(np.arange(i, min(i + size, end)) for i in range(first, end, size))

    def take(self, jobs: Iterable[np.ndarray]) -> Iterator[Batch]:
        """Yield the batch of each array of rows."""
        for read in self.ahead(jobs) if self.ahead else map(self.read, jobs):
            yield Batch(part for column, rows in zip(self.columns, read, strict=True) for part in column.take(rows))

    def read(self, index: np.ndarray) -> list[np.ndarray | Tensor]:
        """Return for each column the rows that come from a file, and of others their index; in any thread."""
        return [column.rows.read(index) if isinstance(column.rows, Mapped) else index for column in self.columns]

    def collate(self, batch: Any) -> Batch:
        """Bring a batch of a loader into the form ``(x, *context)``."""
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)
        return Batch(self.place(name_of(i), tensor_of(name_of(i), part)) for i, part in enumerate(parts))

    def place(self, name: str, x: Tensor) -> Tensor:
        """Convert to the program's dtype and move to its device."""
        # moved first: a copy from pinned memory waits for nothing, unless it converts on the way
        x = x.to(self.device, non_blocking=True)
        # labels may be integers: the program says whether it takes them, x is checked there too
        return x.to(self.dtype) if x.is_floating_point() else x

    def expect(self, *, random: bool) -> None:
        """Tell the system how files will be read."""
        for column in self.columns:
            if isinstance(column.rows, Mapped):
                column.rows.expect(random=random)

    def close(self) -> None:
        """End the threads that read ahead."""
        if self.ahead is not None:
            self.ahead.close()
            self.expect(random=False)


def refuse_unshared(loader: DataLoader) -> None:
    """Refuse a loader that would give the whole data to each rank."""
    own_batches = type(loader.batch_sampler) not in (BatchSampler, type(None))
    if type(loader.sampler) in (RandomSampler, SequentialSampler) and not own_batches:
        raise ValueError(
            "data: with several ranks a DataLoader has to give each rank its own part: pass the Dataset itself, which "
            "fit shares out, or a DataLoader with sampler=torch.utils.data.DistributedSampler(dataset)"
        )


def tensor_of(name: str, part: Any) -> Tensor:
    """Return what a loader or data set gives for one argument of the program as a tensor."""
    try:
        return torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"data: expected tensors, or tuples (x, *context) of them, from a loader or data set, got "
            f"{type(part).__name__} for {name}; take them out of it in the data set or in collate_fn"
        ) from error


def mix(seed: int, epoch: int) -> int:
    """Return one seed for the order of one epoch, far from those of the epochs and seeds beside it."""
    return int(np.random.SeedSequence([seed % 2**63, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
