r"""Data-parallel training: several processes (ranks), on one or many machines, train one program.

``torchrun`` starts the processes and ``torch.distributed`` connects them. With

    torchrun --nproc-per-node 2 -m pyro_vae train

or with any script that calls ``fit``, each rank reads its share of every batch, and the optimizer gets the gradient of
the mean over the joined batch. ``fit`` creates the process group from the variables of torchrun (gloo for the CPU,
nccl for CUDA) unless there is one already, for instance with another timeout:

    torch.distributed.init_process_group(timeout=datetime.timedelta(minutes=2))

* Every rank starts from the weights of rank 0. Noise differs by rank; the order of the data is that of one process.
* Statistics of the bound are those of the joined batch, except that estimators which compare the examples of a batch
  with each other (such as BetaTC and MMD) compare those of one rank.
* After each epoch buffers (such as running statistics) are those of rank 0, and the weights are compared bit by bit.
* Only rank 0 writes files, shows the progress bar and calls plain functions passed as callbacks. ``Callback`` objects
  are called on every rank, and each of them can stop the training of all.

Limits: the gradient is sent in one ``all_reduce`` after the backward pass; shares have equal size, so the slowest
machine sets the pace; devices of different kind, which round differently, fail the comparison of the weights; and
after a rank is lost, ``torchrun --max-restarts`` with ``fit(..., resume=True)`` continues from the last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

from pyro_vae._util.random_state import derive_seed
from pyro_vae.training.checkpoint.serialization import from_bytes, to_bytes
from pyro_vae.training.ranks.collectives import (
    LostRankError,
    all_reduce,
    broadcast_bytes,
    broadcast_tensors,
    checksum,
    collective_device,
    gather_bytes,
    named_tensors,
    names_that_differ,
)

__all__ = ["LostRankError", "Ranks", "in_process_group"]

P = ParamSpec("P")
T = TypeVar("T")

#: How long a rank waits for the others: longer than rank 0 needs to write a checkpoint or to draw a figure.
TIMEOUT = timedelta(minutes=10)


def in_process_group(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function in a process group of the processes that torchrun started; an existing group is used as it is."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
        if not launched or int(os.environ["WORLD_SIZE"]) == 1 or dist.is_initialized():
            return function(*args, **kwargs)
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        # the store outlives the group, and a second group must not read the addresses of the first
        number = (store.add("pyro_vae groups", 1) - 1) // size
        store = dist.PrefixStore(f"pyro_vae group {number}", store)
        dist.init_process_group(store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        try:
            return function(*args, **kwargs)
        finally:
            dist.destroy_process_group()

    return inside


class Ranks:
    """The processes that train together, from the point of view of one of them.

    Args:
        rank: number of this process
        size: number of processes

    Example:
        >>> [Ranks(rank, 3).share(0, 8) for rank in range(3)]
        [(0, 2), (2, 5), (5, 8)]
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def current(cls) -> Ranks:
        """Return the ranks of the process group, or this process alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls(0, 1)

    def local_device(self, device: str | torch.device) -> str | torch.device:
        """Return the device of this rank: with several ranks, ``cuda`` is one GPU for each rank on a machine."""
        if str(device) == "cuda" and self.size > 1:
            return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}"
        return device

    def seed(self, seed: int) -> int:
        """Return the seed of the noise of this rank; rank 0 uses ``seed`` itself."""
        return derive_seed(seed, self.rank) if self.rank else seed

    def share(self, start: int, end: int) -> tuple[int, int]:
        """Return start and end of this rank's share of the positions from ``start`` to ``end``."""
        n = end - start
        return start + n * self.rank // self.size, start + n * (self.rank + 1) // self.size

    def all_agree(self, decide: Callable[[], Any]) -> bool:
        """Return whether ``decide`` returns a true value on any rank; if it fails on one rank, fail on all.

        Raises:
            LostRankError: it failed on another rank.
        """
        if self.size == 1:
            return bool(decide())
        failed = 2
        try:
            answer = int(bool(decide()))
        except BaseException:
            with suppress(LostRankError):
                self.all_reduce_max(failed)
            raise
        answer = self.all_reduce_max(answer)
        if answer == failed:
            raise LostRankError(f"rank {self.rank}: another rank has failed. See its own error message")
        return bool(answer)

    def on_rank_zero(self, work: Callable[[], object]) -> None:
        """Run ``work`` on rank 0, such as writing a file, while the other ranks wait."""
        self.all_agree(lambda: (self.rank == 0 and work()) and False)

    def all_reduce_max(self, number: int) -> int:
        """Return the largest number of all ranks."""
        if self.size == 1:
            return number
        return int(all_reduce(torch.tensor([number], device=collective_device()), dist.ReduceOp.MAX))

    def all_reduce_sum(self, *numbers: float) -> list[float]:
        """Return the sums of numbers over the ranks."""
        if self.size == 1:
            return list(numbers)
        return all_reduce(torch.tensor(numbers, dtype=torch.float64, device=collective_device())).tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return the value of each rank: plain values and tensors, as ``pack`` takes them."""
        if self.size == 1:
            return [value]
        return [from_bytes(*pair) for pair in zip(*map(gather_bytes, to_bytes(value)), strict=True)]

    def broadcast(self, make: Callable[[], T]) -> T:
        """Return on all ranks what ``make`` returns on rank 0: plain values and tensors, as ``pack`` takes them."""
        if self.size == 1:
            return make()
        made: list[T] = []
        self.on_rank_zero(lambda: made.append(make()))
        return from_bytes(*map(broadcast_bytes, to_bytes(made[0] if made else None)))

    def load(self, make: Callable[[], T]) -> T:
        """Return what ``make`` returns; one rank of each machine runs it first, as it may download for the others."""
        first = self.size == 1 or int(os.environ.get("LOCAL_RANK", self.rank)) == 0
        made: list[T] = []
        for mine in (first, not first):
            self.all_agree(lambda: mine and made.append(make()))  # noqa: B023
        return made[0]

    def padded(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of this rank's stream, and repeat the last one until the streams of all ranks have ended.

        A repeated batch has ``counts = False``.
        """
        if self.size == 1:
            yield from batches
            return
        source, last = iter(batches), None

        def advance() -> bool:
            nonlocal last
            batch = next(source, None)
            if batch is None and last is None:
                raise ValueError(
                    f"data: expected at least one batch on each rank, got none from the loader of rank {self.rank}"
                )
            last = last if batch is None else batch
            last.counts = batch is not None
            return last.counts

        while self.all_agree(advance):
            yield last

    def broadcast_weights(self, modules: Sequence[nn.Module], settings: dict[str, Any]) -> None:
        """Overwrite parameters and buffers with those of rank 0.

        Raises:
            ValueError: shapes of the weights or settings differ between the ranks.
        """
        if self.size == 1:
            return
        tensors = named_tensors(modules)
        shapes = {name: (tuple(t.shape), str(t.dtype)) for name, t in tensors.items()}
        wrong = names_that_differ({"names and shapes of the weights": shapes, **settings})
        if wrong:
            raise ValueError(
                f"program: {', '.join(wrong)} differ between the ranks. Call fit with the same program, settings "
                "and amount of data on each rank"
            )
        broadcast_tensors(tensors.values())

    def check_weights(self, modules: Sequence[nn.Module]) -> None:
        """Overwrite buffers with those of rank 0, and raise unless all weights are equal bit by bit.

        Raises:
            RuntimeError: some weights differ; the message names them.
        """
        if self.size == 1:
            return
        tensors = named_tensors(modules)
        broadcast_tensors(t for t in tensors.values() if not t.requires_grad)
        wrong = names_that_differ({name: checksum(t) for name, t in tensors.items()})
        if wrong:
            raise RuntimeError(
                f"program: the weights {', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''} differ between "
                "the ranks: they were changed outside of fit (in a callback, for instance), or the devices differ"
            )
