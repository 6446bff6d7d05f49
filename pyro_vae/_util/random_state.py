"""Random numbers without a trace: every function that draws on its own account gives the streams back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["fork_rng", "set_random_state", "random_state"]


@contextmanager
def fork_rng(like: Any = (), seed: int | None = None) -> Iterator[None]:
    """Restore torch's random streams on leaving: that of the CPU and of the device of the tensors ``like``.

    Args:
        like: a device, or a sequence whose tensors tell the device
        seed: where the streams start within; where they stand if None
    """
    devices = [like] if isinstance(like, torch.device) else [x.device for x in like if isinstance(x, Tensor)]
    cuda = sorted({d.index or 0 for d in devices if d.type == "cuda"})
    with torch.random.fork_rng(devices=cuda):
        if seed is not None:
            # torch.manual_seed moves the streams of all devices, of which the others would not be given back
            torch.default_generator.manual_seed(seed)
            for index in cuda:
                torch.cuda.default_generators[index].manual_seed(seed)
        yield


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return where torch's random streams stand: that of the CPU and of ``device``."""
    found = {"cpu": torch.get_rng_state()}
    return {**found, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else found


def set_random_state(found: dict[str, Tensor], device: torch.device) -> None:
    """Put the random streams to where :func:`random_state` found them."""
    torch.set_rng_state(found["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(found["cuda"], device)
