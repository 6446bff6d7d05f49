"""Weights of examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.arrays import as_tensor, fill_masked

__all__ = ["check_weights", "mean_one"]


def check_weights(weights: Any, n: int | None = None) -> Tensor:
    """Return weights of examples as a tensor of shape ``(n,)`` in double precision on the CPU, or raise.

    Args:
        weights: one finite number of at least 0 per example, not all 0
        n: number of examples; None if it is not known

    Raises:
        TypeError: the weights are not numbers.
        ValueError: their number, a value or all values are wrong.

    Example:
        >>> check_weights([2, 0, 1], 3)
        tensor([2., 0., 1.], dtype=torch.float64)
    """
    try:
        rows = weights if isinstance(weights, Tensor) else np.asarray(fill_masked(weights))
        found = as_tensor(rows).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"weights: expected one number per example, got {type(weights).__name__}") from error
    if found.dim() != 1 or (n is not None and len(found) != n):
        size = "n" if n is None else n
        raise ValueError(f"weights: expected shape ({size},), one number per example, got {tuple(found.shape)}")
    bad = ~(found.isfinite() & (found >= 0))
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"weights: expected finite numbers of at least 0, got {float(found[first])} at index {first}. Leave the "
            "example out, or set its weight to 0"
        )
    if not found.sum() > 0:
        raise ValueError(f"weights: expected at least one that is not 0, got {len(found)} zeros")
    return found


def mean_one(weights: Any, n: int) -> Tensor:
    """Return the weights of n examples, checked, and scaled to a mean of 1 over those that are not 0.

    Example:
        >>> mean_one([3, 0, 1], 3)
        tensor([1.5000, 0.0000, 0.5000], dtype=torch.float64)
    """
    found = check_weights(weights, n)
    found = found / found.max()  # the sum of large weights may be infinite
    return found * (found.count_nonzero() / found.sum())
