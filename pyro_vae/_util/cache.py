"""Tensors that Python computes: they are brought to a device once, not in each step, which would wait for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["cached_tensors"]

P = ParamSpec("P")


def cached_tensors(make: Callable[P, Any]) -> Callable[P, Any]:
    """Have a function of hashable arguments, a device among them, keep the tensors that it makes.

    Tensors that stand for others, as while a step is recorded, are not kept.

    Example:
        >>> import torch
        >>> halves = cached_tensors(lambda n, device: torch.full((n,), 0.5, device=device))
        >>> halves(2, torch.device("cpu")) is halves(2, torch.device("cpu"))
        True
    """
    found: dict[tuple[Any, ...], Any] = {}

    @wraps(make)
    def look(*args: P.args) -> Any:
        if args in found:
            return found[args]
        made = make(*args)
        if all(type(t) is Tensor for t in tree_leaves(made)):
            found[args] = made
        return made

    return look
