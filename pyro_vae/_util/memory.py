"""Errors of torch about too little memory, in words that name the argument to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["enough_memory"]


@contextmanager
def enough_memory(name: str, hint: str) -> Iterator[None]:
    """Raise an error that names an argument when memory is too small.

    Args:
        name: the argument to change
        hint: how to need less memory

    Raises:
        torch.OutOfMemoryError: a tensor does not fit into the memory of its device.

    Example:
        >>> with enough_memory("batch_size", "Lower it"):
        ...     torch.empty(10**15)
        Traceback (most recent call last):
        ...
        torch.OutOfMemoryError: batch_size: expected tensors that fit into memory, got: ...
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if not (isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text):
            raise
        first = (text.partition("DefaultCPUAllocator: ")[2] or text or "too many of them").splitlines()[0].rstrip(".")
        raise torch.OutOfMemoryError(f"{name}: expected tensors that fit into memory, got: {first}. {hint}") from error
