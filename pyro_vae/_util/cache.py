"""Cached tensors: constants that are computed in Python are copied to the device once instead of in each step."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["cached_tensors"]

P = ParamSpec("P")


def cached_tensors(make: Callable[P, Any]) -> Callable[P, Any]:
    """Cache the tensors that a function returns, by its arguments.

    Args:
        make: a function of hashable arguments, the device among them; returns tensors, or containers of tensors

    Returns:
        The cached function. The placeholders of torch's tracers (fake tensors and proxies) are not cached.

    Example:
        >>> import torch
        >>> halves = cached_tensors(lambda n, device: torch.full((n,), 0.5, device=device))
        >>> halves(2, torch.device("cpu")) is halves(2, torch.device("cpu"))
        True
    """
    cache: dict[tuple[Any, ...], Any] = {}

    @wraps(make)
    def cached(*args: P.args) -> Any:
        if args in cache:
            return cache[args]
        made = make(*args)
        if all(type(t) is Tensor for t in tree_leaves(made)):
            cache[args] = made
        return made

    return cached
