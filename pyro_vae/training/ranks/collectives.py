"""Collective operations: all-reduce, broadcast and gather of tensors and bytes, and comparisons between ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = [
    "LostRankError",
    "all_reduce",
    "all_reduce_gradients",
    "broadcast_bytes",
    "broadcast_tensors",
    "buckets",
    "checksum",
    "collective_device",
    "gather_bytes",
    "names_that_differ",
    "named_tensors",
]

#: Numbers that are sent at once.
BUCKET = 2**23


class LostRankError(RuntimeError):
    """Another rank failed, was killed, or did not answer in time."""


def collective_device() -> torch.device:
    """Return the device of numbers that the ranks exchange: the CPU, unless nccl is the only backend."""
    cpu = "cpu:" in str(dist.get_backend_config())
    return torch.device("cpu") if cpu else torch.device("cuda", torch.cuda.current_device())


def all_reduce(t: Tensor, op: Any = None) -> Tensor:
    """Reduce a tensor over the ranks in place, with the sum by default, and return it.

    Raises:
        LostRankError: a rank does not take part.
    """
    try:
        dist.all_reduce(t, dist.ReduceOp.SUM if op is None else op)
    except RuntimeError as error:
        raise lost_rank() from error
    return t


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of rank 0, sent as bytes in one message."""
    targets = [t.detach() for t in tensors]
    if not targets:
        return
    parts = [as_bytes(t) for t in targets]
    flat = torch.cat(parts)
    try:
        dist.broadcast(flat, 0)
    except RuntimeError as error:
        raise lost_rank() from error
    for t, part in zip(targets, flat.split([len(part) for part in parts]), strict=True):
        t.copy_(part.clone().view(t.dtype).view(t.shape))


def broadcast_bytes(data: bytes) -> bytes:
    """Return the bytes of rank 0."""
    length = torch.tensor([len(data)], dtype=torch.int64, device=collective_device())
    broadcast_tensors([length])
    buffer = torch.zeros(int(length), dtype=torch.uint8, device=collective_device())
    if dist.get_rank() == 0 and data:
        buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    broadcast_tensors([buffer] if len(buffer) else [])
    return buffer.cpu().numpy().tobytes()


def gather_bytes(data: bytes) -> list[bytes]:
    """Return the bytes of each rank."""
    size, rank = dist.get_world_size(), dist.get_rank()
    lengths = torch.zeros(size, dtype=torch.int64, device=collective_device())
    lengths[rank] = len(data)
    all_reduce(lengths)
    # each row is zero on all ranks but one: a sum, as all_reduce is the one collective that every backend has
    rows = torch.zeros(size, int(lengths.max()), dtype=torch.uint8, device=collective_device())
    rows[rank, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else 0
    all_reduce(rows)
    return [row[:n].cpu().numpy().tobytes() for row, n in zip(rows, lengths.tolist(), strict=True)]


def all_reduce_gradients(
    parameters: Sequence[Tensor], metrics: dict[str, Any], *, n: int, counts: bool
) -> dict[str, Tensor]:
    """Replace the gradient of the mean over this rank's share by that of the mean over the joined batch.

    Args:
        parameters: parameters, with the gradient of the mean over the share
        metrics: sums over the share, ``loss`` among them
        n: number of examples of the share
        counts: False if this rank has no share; its gradient and metrics are then left out

    Returns:
        The sums over the joined batch, and ``count``, the number of its examples.
    """
    trained = [p for p in parameters if p.grad is not None]
    loss = metrics["loss"]
    numbers = (*metrics.values(), n)
    sums = torch.stack([m.to(loss) if isinstance(m, Tensor) else torch.full_like(loss, m) for m in numbers])
    parts = [*(p.grad for p in trained), sums]
    torch._foreach_mul_(parts[:-1], n) if counts else torch._foreach_zero_(parts)
    for group in buckets(parts):
        flat = all_reduce(torch.cat([parts[i].reshape(-1) for i in group]))
        for i, part in zip(group, flat.split([parts[i].numel() for i in group]), strict=True):
            parts[i] = part.view_as(parts[i])
    *grads, sums = parts
    torch._foreach_div_(grads, sums[-1].clone())
    for p, grad in zip(trained, grads, strict=True):
        p.grad = grad
    # in double precision: the count of an epoch may exceed 2^24, which float32 cannot represent
    return {**dict(zip(metrics, sums, strict=False)), "count": sums[-1].double()}


def lost_rank() -> LostRankError:
    """Return the error to raise if the other ranks do not answer."""
    return LostRankError(
        f"rank {dist.get_rank()}: another of the {dist.get_world_size()} ranks has failed, was killed, or did not "
        "answer in time. See the first error message of any rank"
    )


def names_that_differ(facts: dict[str, Any]) -> list[str]:
    """Return the names of the facts that are not equal on all ranks."""
    own = torch.tensor([fingerprint(fact) for fact in facts.values()], device=collective_device())
    high, low = all_reduce(torch.stack([own, -own]), dist.ReduceOp.MAX)
    return [name for name, differs in zip(facts, (high != -low).tolist(), strict=True) if differs]


def named_tensors(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return all parameters and buffers by name."""
    return {
        f"{i}.{name}" if i else name: t
        for i, module in enumerate(modules)
        for source in (module.named_parameters(), module.named_buffers())
        for name, t in source
    }


def buckets(parts: Sequence[Tensor]) -> list[list[int]]:
    """Group tensors of one dtype for one message each; return the positions of the tensors of each group."""
    groups: list[list[int]] = []
    open_groups: dict[torch.dtype, list[int]] = {}
    room: dict[torch.dtype, int] = {}
    for i, part in enumerate(parts):
        if room.get(part.dtype, 0) < part.numel():
            open_groups[part.dtype], room[part.dtype] = [], BUCKET
            groups.append(open_groups[part.dtype])
        open_groups[part.dtype].append(i)
        room[part.dtype] -= part.numel()
    return groups


def as_bytes(t: Tensor) -> Tensor:
    """Return the bytes of a tensor as a tensor."""
    return t.detach().contiguous().view(-1).view(torch.uint8)


def checksum(t: Tensor) -> str:
    """Return the SHA-256 of the bytes of a tensor."""
    return hashlib.sha256(as_bytes(t).cpu().numpy()).hexdigest()


def fingerprint(fact: Any) -> int:
    """Return a positive 63-bit hash of the repr of a value."""
    return int.from_bytes(hashlib.sha256(repr(fact).encode()).digest()[:8], "big") >> 1
