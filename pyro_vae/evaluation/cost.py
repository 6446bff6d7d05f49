"""Time and memory of a computation, and whether the memory is available."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["PeakMemory", "available", "check_memory", "milliseconds"]

#: Steps that are timed at once.
BLOCK = 5


class PeakMemory(TorchDispatchMode):
    """Measure the peak memory of the tensors that are created inside, in bytes.

    The storage of each tensor that an operation returns counts, on any device, until it is freed. This includes
    gradients and what is saved for the backward pass, but not the scratch space of a single operation.

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
                # a view and the result of an in-place operation share the storage of an argument
                if key not in self.alive and key not in before:
                    self.alive.add(key)
                    self.now += storage.nbytes()
                    self.bytes = max(self.bytes, self.now)
                    weakref.finalize(storage, self.free, key, storage.nbytes())
        return found

    def free(self, key: int, size: int) -> None:
        """Remove a storage that was freed."""
        self.alive.discard(key)
        self.now -= size


def available(device: torch.device) -> float:
    """Return the free memory of a device in bytes, infinity if the system does not report it."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    found = [float("inf")]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = (line.split() for line in meminfo.read_text().splitlines())
        found += [1024.0 * int(words[1]) for words in lines if words[0] == "MemAvailable:"]
    # a container may have less
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        found.append(float(limit.read_text()) - float(used.read_text()))
    return min(found)


def check_memory(name: str, number: int, work: Callable[[int], Any], device: torch.device, *, few: int = 32) -> None:
    """Raise if the argument ``name``, a number of particles, takes more memory on ``device`` than is available.

    ``work(k)`` is what is done for all k particles at once. Its memory is measured for ``few`` and twice as many.
    """
    peaks = []
    for k in (few, 2 * few):
        with PeakMemory() as memory:
            work(k)
        peaks.append(memory.bytes)
    each = max(1.0, (peaks[1] - peaks[0]) / few)
    free = available(device)
    if number * each > free:
        raise ValueError(
            f"{name}: {number:,} particles at once take about {number * each / 2**30:,.1f} GiB of memory, "
            f"{free / 2**30:,.1f} GiB are available. Use at most {int(free / each):,}"
        )


def milliseconds(
    steps: Mapping[str, Callable[[], Any]], device: torch.device, *, rounds: int, tick: Callable[[], Any]
) -> dict[str, float]:
    """Return the milliseconds of several steps, timed in turn in ``rounds`` blocks of five steps each.

    The fastest block counts, as other work on the machine only ever adds time. ``tick`` is called after each block.
    """

    def wait() -> None:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    best = dict.fromkeys(steps, float("inf"))
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            wait()
            start = time.perf_counter()
            for _ in range(BLOCK):
                step()
            wait()
            if round_:
                best[name] = min(best[name], (time.perf_counter() - start) / BLOCK * 1e3)
            tick()
    return best
