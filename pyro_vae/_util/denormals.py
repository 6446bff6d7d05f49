"""Numbers too small to matter, taken for zero: on a CPU they cost a hundred times as much as others."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["flush_denormals"]


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Take denormal numbers (below 1.2e-38 in float32) for zero within, in this thread and in those that it starts.

    A particle that is 90 nats lighter than the best one has a weight of 1e-39, and so have all gradients that follow
    from it. A CPU computes with such numbers in microcode: training under many weighted particles becomes up to four
    times slower, and Adam's moments of a pixel that is seldom lit do the same in the long run.
    On leaving, everything is as it was. Other devices flush by themselves, and nothing happens on a CPU that cannot.

    Returns:
        A context manager.

    Example:
        >>> tiny = torch.tensor(1e-38)
        >>> with flush_denormals():
        ...     print(float(tiny / 10))
        0.0
        >>> float(tiny / 10) > 0
        True
    """
    if flushed() or not torch.set_flush_denormal(True):
        yield
        return
    rest_workers()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        rest_workers()


def flushed() -> bool:
    """Whether this thread takes denormal numbers for zero already."""
    return not bool(torch.full((), 1e-38) / 10 > 0)


def rest_workers() -> None:
    """End OpenMP's idle threads: those that it starts next inherit the mode of this one.

    The mode belongs to each thread, and there is no other road to those of a pool. Where the runtime lacks the call
    (it came with OpenMP 5.0), only this thread flushes.
    """
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None) if os.name == "posix" else None
    if pause is not None:
        pause(1)  # omp_pause_soft: what was set, such as the number of threads, stays
