"""Means over particles and scaled sums over a batch."""

from __future__ import annotations

from torch import Tensor

__all__ = ["mean", "scaled_sum"]


def mean(terms: Tensor) -> Tensor:
    """Return the mean over particles, ``(particles, batch)`` to ``(batch,)``, free for one particle."""
    return terms[0] if terms.shape[0] == 1 else terms.mean(0)


def scaled_sum(scale: float | Tensor, per_example: Tensor) -> Tensor:
    """Return the scaled sum over the batch."""
    if isinstance(scale, Tensor):
        return (scale * per_example).sum()
    return per_example.sum() if scale == 1.0 else per_example.sum() * scale
