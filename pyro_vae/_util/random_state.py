"""Torch's random state: save it, restore it, and derive seeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.lock import LOCK
from pyro_vae._util.row_noise import fork_row_noise
from pyro_vae._util.validation import check_int

__all__ = ["derive_seed", "fork_rng", "fork_rng_unlocked", "random_state", "set_random_state"]


@contextmanager
def fork_rng(like: Any = (), seed: int | None = None) -> Iterator[None]:
    """Restore torch's random state on exit: that of the CPU and of the device of the tensors ``like``.

    The random state belongs to the process: other threads that call the library wait until the exit.

    Args:
        like: a device, or a sequence that contains tensors of the device
        seed: seed to start from inside the context; None continues from the present state
    """
    with LOCK, fork_rng_unlocked(like, seed):
        yield


@contextmanager
def fork_rng_unlocked(like: Any = (), seed: int | None = None) -> Iterator[None]:
    """As :func:`fork_rng` inside a run of a program, whose caller holds the lock.

    A backward pass on a GPU runs in a thread of torch, which would wait for its own caller.
    """
    seed = None if seed is None else check_int("seed", seed, -(2**63), 2**63 - 1)
    devices = [like] if isinstance(like, torch.device) else [x.device for x in like if isinstance(x, Tensor)]
    cuda = sorted({d.index or 0 for d in devices if d.type == "cuda"})
    with torch.random.fork_rng(devices=cuda), fork_row_noise(seed):
        if seed is not None:
            # torch.manual_seed would seed the generators of all devices, also of those that are not restored
            torch.default_generator.manual_seed(seed)
            for index in cuda:
                torch.cuda.default_generators[index].manual_seed(seed)
        yield


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return torch's random state, of the CPU and of ``device``."""
    state = {"cpu": torch.get_rng_state()}
    return {**state, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restore what :func:`random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def derive_seed(seed: int, index: int) -> int:
    """Return a seed for one of many independent streams, such as that of one rank or one repetition.

    Args:
        seed: any int
        index: number of the stream, at least 0

    Returns:
        A seed of 63 bits, unrelated to those of other seeds and indices.

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence([seed % 2**63, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))
