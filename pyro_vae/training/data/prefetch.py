"""Reading ahead: rows of memory-mapped files larger than memory are read while earlier steps run."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.lazy import LazyRows

__all__ = ["Mapped", "ReadAhead"]

Job = TypeVar("Job")
Result = TypeVar("Result")

#: Bytes of a file that may stay in memory before its pages are released.
RESIDENT = 2**28

#: Bytes around a row that the system may map with it: its page cache holds files in blocks of up to this size.
AROUND = 2**21

#: Threads that read, one batch each: disks serve several requests at once.
READERS = 4


class Mapped(LazyRows):
    """The rows of a memory-mapped array, few of which stay in memory.

    Args:
        array: the memmap
        pin: whether to return pinned memory, from which copies to a GPU are asynchronous
    """

    def __init__(self, array: np.memmap, *, pin: bool = False) -> None:
        self.array, self.pin = array.view(np.ndarray), pin
        self.map, self.shape = releasable(array), array.shape
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


class ReadAhead:
    """Run jobs in threads, a few ahead of the consumer, and return their results in the order of the jobs.

    An error in a job is raised in place of its result, with the traceback of the thread.

    Args:
        work: function from a job to its result; must not draw random numbers
        depth: number of jobs that are started ahead

    Example:
        >>> ahead = ReadAhead(abs, depth=2)
        >>> list(ahead([-1, -2, -3]))
        [1, 2, 3]
        >>> ahead.close()
    """

    def __init__(self, work: Callable[[Job], Result], *, depth: int = READERS) -> None:
        self.work, self.depth = work, depth
        # the threads start with the first jobs
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
        """Stop the threads."""
        self.pool.shutdown(cancel_futures=True)
