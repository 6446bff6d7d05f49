"""The number of threads of torch, chosen by the size of the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["limit_threads", "restored_threads"]

#: Multiplications per step and thread from which another thread saves more time than it waits.
LEAST = 10_000_000


@contextmanager
def restored_threads() -> Iterator[None]:
    """Restore the number of threads of torch on exit.

    Example:
        >>> with restored_threads():
        ...     torch.set_num_threads(1)
    """
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def limit_threads(module: nn.Module, batch_size: int) -> None:
    """Let torch use at most as many threads as are worth their waiting, for steps on batches of this size.

    Small operations end before all threads have started, and on a busy machine each of them waits for the slowest.
    The number of threads is a setting of the process: only a command, whose process is its own, may change it.

    Example:
        >>> with restored_threads():
        ...     limit_threads(nn.Linear(10, 32), 128)
        ...     torch.get_num_threads()
        1
    """
    work = batch_size * sum(p.numel() for p in module.parameters())
    torch.set_num_threads(min(torch.get_num_threads(), max(1, work // LEAST)))
