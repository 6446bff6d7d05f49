"""Reading ahead: rows of files larger than memory are read while earlier steps run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ReadAhead"]

Job = TypeVar("Job")
Result = TypeVar("Result")

#: Threads that read, one batch each: disks serve several requests at once.
READERS = 4


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
