"""Rows from files larger than memory, read while the step before is at work."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["Mapped", "ReadAhead"]

Job = TypeVar("Job")
Result = TypeVar("Result")

#: Bytes of a file that stay mapped before their pages are given back.
RESIDENT = 2**28

#: Bytes that may be mapped around a row that is read: the cache of the system holds files in pieces up to this size.
AROUND = 2**21

#: Threads that read, each a batch: a disk answers several questions at once.
READERS = 4


class Mapped:
    """The rows of a memory-mapped array, of which little stays in memory.

    Args:
        array: the memmap
        pin: whether rows are put where an accelerator can fetch them by itself
    """

    def __init__(self, array: np.memmap, *, pin: bool = False) -> None:
        self.array, self.pin = array.view(np.ndarray), pin
        self.map = droppable(array)
        self.row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
        self.read_bytes = 0

    def __len__(self) -> int:
        return len(self.array)

    def expect(self, *, random: bool) -> None:
        """Tell the system how the file will be read: a page at a time, or with those that follow."""
        if self.map is not None:
            self.map.madvise(mmap.MADV_RANDOM if random else mmap.MADV_NORMAL)

    def read(self, index: np.ndarray) -> Tensor:
        """Return copies of these rows, on the CPU; may be called in any thread."""
        rows = torch.from_numpy(np.take(self.array, index, axis=0))
        # two threads may meet here: the pages are then given back a little sooner or later, which changes no number
        self.read_bytes += len(index) * (self.row_bytes + AROUND)
        if self.map is not None and self.read_bytes > RESIDENT:
            self.read_bytes = 0
            self.map.madvise(mmap.MADV_DONTNEED)
        return rows.pin_memory() if self.pin else rows


def droppable(array: np.memmap) -> mmap.mmap | None:
    """Return the map below an array if its pages can be given back without loss, else None."""
    # what was written to a copy-on-write map is in these pages alone
    if array.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


class ReadAhead:
    """Do jobs in threads, a few ahead of where their results are used, and give the results in the order of the jobs.

    An error in a job is raised where its result would have come, with the traceback of the thread.

    Args:
        work: from a job to its result; draws no random numbers
        depth: jobs that are started ahead

    Example:
        >>> ahead = ReadAhead(abs, depth=2)
        >>> list(ahead([-1, -2, -3]))
        [1, 2, 3]
        >>> ahead.close()
    """

    def __init__(self, work: Callable[[Job], Result], *, depth: int = READERS) -> None:
        self.work, self.depth = work, depth
        # its threads begin with the first jobs
        self.pool = ThreadPoolExecutor(READERS, thread_name_prefix="pyro_vae read ahead")

    def __call__(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the result of each job."""
        waiting: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                waiting.append(self.pool.submit(self.work, job))
                if len(waiting) > self.depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for job in waiting:
                job.cancel()

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(cancel_futures=True)
