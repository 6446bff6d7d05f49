"""The support of a latent, which must be the same in each run, and the transform from real numbers to it."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

__all__ = ["fixed_support", "same_support", "to_support"]

BOUNDS = ("lower_bound", "upper_bound")


def fixed_support(fn: Any) -> Any:
    """Return the support of a distribution with bounds for one event, None if they differ between events."""
    support, depth = fn.support, 0
    while isinstance(support, constraints.independent):
        depth += support.reinterpreted_batch_ndims
        support = support.base_constraint
    given = support
    for name in BOUNDS:
        bound = getattr(given, name, None)
        if isinstance(bound, Tensor) and bound.dim():
            # a plate expands the bounds of the distribution
            events = bound.detach().reshape(-1, *bound.shape[max(0, bound.dim() - len(fn.event_shape)) :])
            if not (events == events[0]).all():
                return None
            support = copy(given) if support is given else support
            one = events[0].reshape(-1)
            # a number is on no device
            setattr(support, name, float(one[0]) if (one == one[0]).all() else events[0])
    return constraints.independent(support, depth) if depth else support


def same_support(a: Any, b: Any) -> bool:
    """Whether two supports of :func:`fixed_support` are equal; two that differ between events are not."""
    while isinstance(a, constraints.independent) and isinstance(b, constraints.independent):
        a, b = a.base_constraint, b.base_constraint
    if a is None or type(a) is not type(b):
        return False
    ends = [tuple(torch.as_tensor(getattr(s, name, 0.0)) for s in (a, b)) for name in BOUNDS]
    return all(one.shape == other.shape and bool((one == other).all()) for one, other in ends)


def to_support(support: Any) -> Any:
    """Return the transform from real numbers to a support, None where there is none."""
    try:
        return biject_to(support)
    except NotImplementedError:
        return None
