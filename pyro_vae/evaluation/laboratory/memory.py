"""Whether the particles that are asked for fit into memory, told before the work begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pyro_vae.evaluation.laboratory.cost import PeakMemory

__all__ = ["available", "refuse_too_many"]


def available(device: torch.device) -> float:
    """Return how many bytes are free on a device, infinity where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    found = [float("inf")]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = (line.split() for line in meminfo.read_text().splitlines())
        found += [1024.0 * int(words[1]) for words in lines if words[0] == "MemAvailable:"]
    # of a container
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        found.append(float(limit.read_text()) - float(used.read_text()))
    return min(found)


def refuse_too_many(
    name: str, number: int, work: Callable[[int], Any], device: torch.device, *, few: int = 32
) -> None:
    """Refuse so many particles if what they need at once is more than there is.

    Args:
        name: of the argument
        number: of particles
        work: does for so many particles what is done for all of them at once; run on a few, on one datum
        device: where it runs
        few: memory is measured on so many and on twice as many

    Raises:
        ValueError: it says which number fits.
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
            f"{name}: {number:,} at once need about {number * each / 2**30:,.1f} GiB of memory, {free / 2**30:,.1f} "
            f"GiB are free: ask for at most {int(free / each):,}"
        )
