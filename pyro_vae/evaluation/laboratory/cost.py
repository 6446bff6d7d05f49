"""Time and memory of a training step."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["PeakMemory", "milliseconds"]

#: Steps timed at once.
BLOCK = 5


def milliseconds(
    steps: Mapping[str, Callable[[], Any]], device: torch.device, *, rounds: int, tick: Callable[[], Any]
) -> dict[str, float]:
    """Time several steps in one process and in turn, as other work on a machine comes and goes.

    Args:
        steps: by name, functions that take one step
        device: is waited for where it works on its own
        rounds: blocks of five steps each, after one block that does not count
        tick: called after each block

    Returns:
        For each, the fastest block: other work only ever adds time.
    """
    best = dict.fromkeys(steps, float("inf"))
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            wait(device)
            start = time.perf_counter()
            for _ in range(BLOCK):
                step()
            wait(device)
            if round_:
                best[name] = min(best[name], (time.perf_counter() - start) / BLOCK * 1e3)
            tick()
    return best


def wait(device: torch.device) -> None:
    """Wait for a device that works on its own."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class PeakMemory(TorchDispatchMode):
    """Measure the most bytes of tensors that were alive at once, of those made within.

    It counts the storage of each tensor that an operation returns, on any device, until it is freed: also what is
    kept for the backward pass and the gradients. The scratch space of a single operation is not seen.

    Attributes:
        bytes: the peak

    Example:
        >>> with PeakMemory() as memory:
        ...     x = torch.zeros(1000)
        ...     y = (x + 1) * 2
        >>> memory.bytes
        12000
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.now = 0
        self.alive: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count its results."""
        before = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        found = func(*args, **(kwargs or {}))
        for x in tree_leaves(found):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                key = storage._cdata
                # a view, or a result in place, has the storage of an argument
                if key not in self.alive and key not in before:
                    self.alive.add(key)
                    self.now += storage.nbytes()
                    self.bytes = max(self.bytes, self.now)
                    weakref.finalize(storage, self.free, key, storage.nbytes())
        return found

    def free(self, key: int, size: int) -> None:
        """Forget a storage."""
        self.alive.discard(key)
        self.now -= size
