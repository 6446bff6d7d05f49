"""A limit to the memory that the description of a program can take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Bounded"]

#: Numbers that a program may create in addition to some times those in its weights.
FREE, TIMES = 2**24, 8


class Bounded(TorchDispatchMode):
    """Raise before new tensors have far more numbers than the weights that a program is built for.

    Sizes in a damaged file would fill the memory before its weights turn out to have other shapes.

    Args:
        weights: the weights by name

    Raises:
        ValueError: the new tensors are too large.

    Example:
        >>> import torch
        >>> with Bounded({"weight": torch.zeros(3, 3)}):
        ...     torch.zeros(10**9)
        Traceback (most recent call last):
        ValueError: sizes need at least 1,000,000,000 numbers, far more than the 9 of the weights
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.expected = sum(value.numel() for value in weights.values())
        self.created = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation unless it creates too large a tensor."""
        leaves = tree_leaves(args)
        if args and not any(isinstance(leaf, Tensor) for leaf in leaves):
            sizes = args[0] if isinstance(args[0], (list, tuple)) else [max(map(int, leaves))]
            self.created += math.prod(sizes)
            if self.created > FREE + TIMES * self.expected:
                raise ValueError(
                    f"sizes need at least {self.created:,} numbers, far more than the {self.expected:,} of the weights"
                )
        return func(*args, **(kwargs or {}))
