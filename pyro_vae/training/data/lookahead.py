"""A last batch of one example joins the batch before it, as BatchNorm and statistics of a batch need more than one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import torch
from torch import Tensor

__all__ = ["Batch", "joined", "num_batches"]


class Batch(tuple[Tensor, ...]):
    """The tensors ``(x, *context)`` of a minibatch.

    Attributes:
        counts: False for padding: a rank that has no share of the joined batch gets one row that is not counted, so
            that it takes part in the step
    """

    counts = True


def num_batches(n: int, size: int) -> int:
    """Return the number of batches of ``size`` of n examples, a single last example being part of the one before.

    Example:
        >>> [num_batches(n, 4) for n in (1, 4, 5, 6, 9)]
        [1, 1, 1, 2, 2]
    """
    alone = size > 1 and n > size and n % size == 1
    return n // size if alone else -(-n // size)


def joined(batches: Iterator[Batch], before: Callable[[int], object] | None = None) -> Iterator[Batch]:
    """Yield the batches of a stream, a single last example joined to the batch before it; reads one batch ahead.

    Args:
        batches: the batches
        before: called with the number of each batch before it is read

    Example:
        >>> [len(x) for (x,) in joined(Batch([torch.zeros(n, 3)]) for n in (4, 4, 1))]
        [4, 5]
    """
    numbers = count()

    def read() -> Batch | None:
        if before is not None:
            before(next(numbers))
        return next(batches, None)

    waiting = read()
    while waiting is not None:
        following = read()
        if following is not None and can_join(waiting, following):
            beyond = read()
            if beyond is None:
                waiting, following = Batch(map(torch.cat, zip(waiting, following, strict=True))), None
            else:  # one example in the middle: a loader may choose its batches itself
                yield waiting
                waiting, following = following, beyond
        yield waiting
        waiting = following


def can_join(batch: Batch, single: Batch) -> bool:
    """Whether the second batch is one example, which has the form of those of the first."""
    return (
        len(batch) == len(single)
        and all(a.dim() and b.dim() and a.shape[1:] == b.shape[1:] for a, b in zip(batch, single, strict=True))
        and len(batch[0]) > 1
        and all(len(x) == 1 for x in single)
    )
