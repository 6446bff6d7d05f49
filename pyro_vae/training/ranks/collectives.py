"""What ranks send each other: sums, extremes, the weights of rank 0, and checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = [
    "LostRankError",
    "buckets",
    "bytes_of_rank_0",
    "digest",
    "from_all",
    "from_rank_0",
    "reduce",
    "tensors",
    "told_on",
    "unequal",
]

#: Numbers that are sent at once.
BUCKET = 2**23


class LostRankError(RuntimeError):
    """Another rank has failed, was killed, or did not answer in time."""


def told_on() -> torch.device:
    """Return where numbers are put that the ranks tell each other: the CPU, unless nccl is all there is."""
    cpu = "cpu:" in str(dist.get_backend_config())
    return torch.device("cpu") if cpu else torch.device("cuda", torch.cuda.current_device())


def reduce(t: Tensor, how: Any = None) -> Tensor:
    """Reduce a tensor over the ranks in its place, by its sum if not told how, and return it.

    Raises:
        LostRankError: not all ranks take part.
    """
    try:
        dist.all_reduce(t, dist.ReduceOp.SUM if how is None else how)
    except RuntimeError as error:
        raise lost() from error
    return t


def from_rank_0(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of rank 0, sent as bytes in one piece."""
    held = [t.detach() for t in tensors]
    if not held:
        return
    parts = [as_bytes(t) for t in held]
    flat = torch.cat(parts)
    try:
        dist.broadcast(flat, 0)
    except RuntimeError as error:
        raise lost() from error
    for t, part in zip(held, flat.split([len(part) for part in parts]), strict=True):
        t.copy_(part.clone().view(t.dtype).view(t.shape))


def bytes_of_rank_0(data: bytes) -> bytes:
    """Return the bytes that rank 0 gives."""
    length = torch.tensor([len(data)], dtype=torch.int64, device=told_on())
    from_rank_0([length])
    held = torch.zeros(int(length), dtype=torch.uint8, device=told_on())
    if dist.get_rank() == 0 and data:
        held.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    from_rank_0([held] if len(held) else [])
    return held.cpu().numpy().tobytes()


def from_all(data: bytes) -> list[bytes]:
    """Return the bytes that each rank gives."""
    size, rank = dist.get_world_size(), dist.get_rank()
    lengths = torch.zeros(size, dtype=torch.int64, device=told_on())
    lengths[rank] = len(data)
    reduce(lengths)
    # a sum of what one rank has and the others leave at 0: the one collective that every backend has
    together = torch.zeros(size, int(lengths.max()), dtype=torch.uint8, device=told_on())
    together[rank, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else 0
    reduce(together)
    return [row[:n].cpu().numpy().tobytes() for row, n in zip(together, lengths.tolist(), strict=True)]


def lost() -> LostRankError:
    """Return what to raise where the others do not answer."""
    return LostRankError(
        f"rank {dist.get_rank()}: another of the {dist.get_world_size()} ranks has failed, was killed, or did not "
        "answer in time; the first message of any rank says why"
    )


def unequal(facts: dict[str, Any]) -> list[str]:
    """Return the names of those facts that are not the same on all ranks."""
    own = torch.tensor([fingerprint(fact) for fact in facts.values()], device=told_on())
    high, low = reduce(torch.stack([own, -own]), dist.ReduceOp.MAX)
    return [name for name, differs in zip(facts, (high != -low).tolist(), strict=True) if differs]


def tensors(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return all parameters and buffers by name."""
    return {
        f"{i}.{name}" if i else name: t
        for i, module in enumerate(modules)
        for source in (module.named_parameters(), module.named_buffers())
        for name, t in source
    }


def buckets(parts: Sequence[Tensor]) -> list[list[int]]:
    """Return groups of positions of tensors of one dtype, each group of about as many numbers as are sent at once."""
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
    """Return the bytes of a tensor."""
    return t.detach().contiguous().view(-1).view(torch.uint8)


def digest(t: Tensor) -> str:
    """Return a checksum of the bytes of a tensor."""
    return hashlib.sha256(as_bytes(t).cpu().numpy()).hexdigest()


def fingerprint(fact: Any) -> int:
    """Return a positive 63-bit number for what is printed in the same way on each rank."""
    return int.from_bytes(hashlib.sha256(repr(fact).encode()).digest()[:8], "big") >> 1
