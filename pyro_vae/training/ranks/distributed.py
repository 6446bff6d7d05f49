r"""Several processes, on one machine or many, that train one program.

``torchrun`` starts the processes ("ranks") and ``torch.distributed`` joins them: under

    torchrun --nproc-per-node 2 -m pyro_vae train

or in any script of yours that calls ``fit``, each rank takes its share of every batch, and what the optimizer sees
is the gradient of the mean over the joined batch. ``fit`` makes the process group from the variables that torchrun
sets (gloo for the CPU, nccl for CUDA), unless there is one already, as when you want another timeout:

    torch.distributed.init_process_group(timeout=datetime.timedelta(minutes=2))

What holds: every rank starts from the weights of rank 0; noise differs by rank; the order of the data is that of one
process; statistics of the bound are those of the joined batch; the weights are compared bit by bit after each epoch.
Rank 0 alone writes files, shows the bar and calls plain functions given as callbacks; objects of ``Callback`` are
called on every rank, and any of them can stop all. Buffers (running statistics, say) are those of rank 0 after each
epoch. Estimators that compare the data of a batch with each other (BetaTC, MMD and their like) see the share of their
rank.

On paper, for 64 ranks on mixed machines, this would have to change:

* one ``all_reduce`` after the backward pass waits for the whole gradient: buckets would be sent while the pass goes
  on, from hooks on the parameters, the last layers first, and within a machine before between machines;
* shares are of equal size, so that the slowest machine sets the pace: :meth:`Ranks.share` would cut by measured speed,
  which the weighting by the size of the shares already allows;
* unlike devices round unlike, so that equal gradients leave weights that differ in the last bit: the weights of
  rank 0 would be sent at each check, and a tolerance would take the place of equality;
* every rank looks for an error through its own collectives: with so many, one that dies every few days is normal, and
  training would go on from the last checkpoint under ``torchrun --max-restarts`` with a number of ranks that may
  differ, for which the order of the data is already a function of seed, epoch and position alone;
* a batch of 64 shares asks for a larger learning rate with a warm-up, which no code here decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from pyro_vae.training.checkpoint.checkpoint import Checkpoint, pack_in_bytes, unpack_bytes
from pyro_vae.training.ranks.collectives import (
    LostRankError,
    buckets,
    bytes_of_rank_0,
    digest,
    from_all,
    from_rank_0,
    reduce,
    tensors,
    told_on,
    unequal,
)

__all__ = ["LostRankError", "Ranks", "in_process_group"]

P = ParamSpec("P")
T = TypeVar("T")

#: How long a rank waits for the others: longer than rank 0 takes to write a checkpoint or to draw a figure.
TIMEOUT = timedelta(minutes=10)


def in_process_group(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function in the process group of torchrun, made before it and taken down after it where there is none."""

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
    """The processes that train together, as one of them sees them.

    Args:
        rank: which of them this is
        size: how many there are

    Example:
        >>> [Ranks(rank, 3).share(0, 8) for rank in range(3)]
        [(0, 2), (2, 5), (5, 8)]
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def current(cls) -> Ranks:
        """Return those of the process group, or this process alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls(0, 1)

    def local(self, device: str | torch.device) -> str | torch.device:
        """Return the device that is meant on this rank: with several, ``cuda`` is a GPU for each on its machine."""
        if str(device) == "cuda" and self.size > 1:
            return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}"
        return device

    def seed(self, seed: int) -> int:
        """Return the seed of the noise of this rank; of rank 0 it is ``seed``."""
        if self.rank == 0:
            return seed
        return int(np.random.SeedSequence([seed % 2**63, self.rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def share(self, start: int, end: int) -> tuple[int, int]:
        """Return where this rank's share of the positions from ``start`` to ``end`` begins and ends."""
        n = end - start
        return start + n * self.rank // self.size, start + n * (self.rank + 1) // self.size

    def all_agree(self, decide: Callable[[], Any]) -> bool:
        """Return whether ``decide`` says yes on any rank, and where it fails on one have all fail.

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
                reduce(torch.tensor([failed], device=told_on()), dist.ReduceOp.MAX)
            raise
        answer = int(reduce(torch.tensor([answer], device=told_on()), dist.ReduceOp.MAX))
        if answer == failed:
            raise LostRankError(f"rank {self.rank}: another rank has failed, its own message says of what")
        return bool(answer)

    def on_rank_zero(self, work: Callable[[], object]) -> None:
        """Do on rank 0 alone what all have to wait for, such as writing a file."""
        self.all_agree(lambda: (self.rank == 0 and work()) and False)

    def all_reduce_max(self, number: int) -> int:
        """Return the largest number of any rank."""
        if self.size == 1:
            return number
        return int(reduce(torch.tensor([number], device=told_on()), dist.ReduceOp.MAX))

    def gather(self, data: bytes) -> list[bytes]:
        """Return the bytes of each rank."""
        return [data] if self.size == 1 else from_all(data)

    def broadcast(self, read: Callable[[], Checkpoint | None]) -> Checkpoint | None:
        """Return on all ranks the checkpoint that the first one reads, or None where it finds none."""
        if self.size == 1:
            return read()
        found: list[Checkpoint | None] = []
        self.on_rank_zero(lambda: found.append(read()))
        held = found[0] if found else None
        own = (b"", b"") if held is None else pack_in_bytes([str(held.path), held.weights, held.state])
        plain, tensors = map(bytes_of_rank_0, own)
        if not plain:
            return None
        path, weights, state = unpack_bytes(plain, tensors)
        return Checkpoint(Path(path), weights, state)

    def load(self, make: Callable[[], T]) -> T:
        """Return what ``make`` does, first on one rank of each machine, that it may download for the others."""
        first = self.size == 1 or int(os.environ.get("LOCAL_RANK", self.rank)) == 0
        made: list[T] = []
        for mine in (first, not first):
            self.all_agree(lambda: mine and made.append(make()))  # noqa: B023
        return made[0]

    def in_step(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of a stream of this rank, the last one over and over until all have come to their end.

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
                    f"data: expected at least one batch on each rank, the loader of rank {self.rank} gave none"
                )
            last = last if batch is None else batch
            last.counts = batch is not None
            return last.counts

        while self.all_agree(advance):
            yield last

    def begin(self, modules: Sequence[nn.Module], settings: dict[str, Any]) -> None:
        """Give all ranks the weights of rank 0.

        Raises:
            ValueError: the ranks have built programs of other shapes, or were given other settings.
        """
        if self.size == 1:
            return
        named = tensors(modules)
        forms = {name: (tuple(t.shape), str(t.dtype)) for name, t in named.items()}
        wrong = unequal({"names and shapes of the weights": forms, **settings})
        if wrong:
            raise ValueError(
                f"distributed: {', '.join(wrong)} differ between the ranks; each has to call fit with the same "
                "program, settings and amount of data"
            )
        from_rank_0(named.values())

    def join(
        self, parameters: Sequence[Tensor], metrics: dict[str, Any], *, n: int, counts: bool
    ) -> dict[str, Tensor]:
        """Put the gradient of the mean over the joined batch in the place of that over this rank's share.

        Args:
            parameters: with the gradient of the mean over the share
            metrics: sums over the share, ``loss`` among them
            n: number of data of the share
            counts: False if this rank has no share: what it has computed is left out

        Returns:
            The sums over the joined batch, and ``count``, the number of its data.
        """
        held = [p for p in parameters if p.grad is not None]
        loss = metrics["loss"]
        numbers = (*metrics.values(), n)
        sums = torch.stack([m.to(loss) if isinstance(m, Tensor) else torch.full_like(loss, m) for m in numbers])
        parts = [*(p.grad for p in held), sums]
        torch._foreach_mul_(parts[:-1], n) if counts else torch._foreach_zero_(parts)
        for group in buckets(parts):
            flat = reduce(torch.cat([parts[i].reshape(-1) for i in group]))
            for i, part in zip(group, flat.split([parts[i].numel() for i in group]), strict=True):
                parts[i] = part.view_as(parts[i])
        *grads, sums = parts
        torch._foreach_div_(grads, sums[-1].clone())
        for p, grad in zip(held, grads, strict=True):
            p.grad = grad
        # counts above 2^24, as of an epoch, are beyond float32
        return {**dict(zip(metrics, sums, strict=False)), "count": sums[-1].double()}

    def sum(self, *numbers: float) -> list[float]:
        """Return the sums of numbers over the ranks."""
        if self.size == 1:
            return list(numbers)
        return reduce(torch.tensor(numbers, dtype=torch.float64, device=told_on())).tolist()

    def compare(self, modules: Sequence[nn.Module]) -> None:
        """Bring buffers to those of rank 0, and prove that all weights are equal.

        Raises:
            RuntimeError: they are not; it names them.
        """
        if self.size == 1:
            return
        named = tensors(modules)
        from_rank_0(t for t in named.values() if not t.requires_grad)
        wrong = unequal({name: digest(t) for name, t in named.items()})
        if wrong:
            raise RuntimeError(
                f"distributed: the weights {', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''} differ between "
                "the ranks: they were changed outside of fit (in a callback, say), or by devices of unlike kind"
            )
