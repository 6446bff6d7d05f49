"""Data on their way into an evaluator."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.programs.program import Program
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.prefetch import Mapped

__all__ = ["BUDGET", "at_once", "batches_of", "one_batch"]

#: Particles times entries of a datum held at once: 8 MB of float32, which caches still hold (on a CPU a third
#: faster than 64 MB) and far below what any device has.
BUDGET = 2**21


def batches_of(program: Program, x: Any, batch_size: int | None = None) -> Batches:
    """Return the data in order, where the program is and in its dtype, after the program has checked them."""
    first = next(program.parameters(), torch.zeros(()))
    batches = Batches(x, batch_size=batch_size or 1, shuffle=False, device=first.device, dtype=first.dtype)
    # a transform may draw random numbers
    with fork_rng(first.device):
        for chunk in batches.chunks():
            program.check(*chunk)
    return batches


def one_batch(program: Program, x: Any) -> tuple[Tensor, ...]:
    """Return the data as one batch where the program is, checked."""
    batches = batches_of(program, x)
    if not batches.columns:
        raise TypeError("x: expected rows of data or a tuple (x, context), got a stream: take one batch of it")
    batches.batch_size = len(batches)
    with fork_rng(batches.device):
        (batch,) = batches.epoch(0)
    return batch


def at_once(batches: Batches) -> int:
    """Return how many particles, over all data of a batch together, keep memory small."""
    return max(1, BUDGET // max(entries(batches.columns[0].rows) if batches.columns else 1, 512))


def entries(rows: Any) -> int:
    """Return the number of entries of a datum, without a look at the rows of a file."""
    if isinstance(rows, Mapped):
        return math.prod(rows.array.shape[1:])
    first = rows[0]
    return torch.as_tensor(first[0] if isinstance(first, (tuple, list)) else first).numel()
