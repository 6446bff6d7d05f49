"""Flushing of denormal numbers to zero, as a CPU computes with them a hundred times more slowly."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["flush_denormals"]


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Flush denormal numbers (below 1.2e-38 in float32) to zero, in this thread and in the threads that it starts.

    A particle whose log-weight is 90 nats below the largest has a weight of 1e-39, and so have all gradients that
    depend on it. A CPU computes with such numbers in microcode: training with many weighted particles becomes up to
    four times slower, and so do the moments of Adam for a pixel that is rarely on. The previous mode is restored on
    exit. Other devices always flush, and on a CPU that cannot flush nothing happens.

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
    if is_flushing() or not torch.set_flush_denormal(True):
        yield
        return
    stop_idle_workers()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        stop_idle_workers()


def is_flushing() -> bool:
    """Whether this thread flushes denormal numbers already."""
    return not bool(torch.full((), 1e-38) / 10 > 0)


def stop_idle_workers() -> None:
    """Stop the idle threads of OpenMP, so that the next ones inherit the mode of this thread.

    Each thread has a mode of its own, and the pool offers no other way to set it. OpenMP runtimes before 5.0 lack
    this call; there, only this thread flushes.
    """
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None) if os.name == "posix" else None
    if pause is not None:
        pause(1)  # omp_pause_soft keeps settings such as the number of threads
