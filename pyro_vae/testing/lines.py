"""Sums and integrals over the support of one number, and over arrays of a few of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.by_column import Columns
from pyro_vae.distributions.supports import Bags, Grid, open_unit_interval

__all__ = ["array_grid", "bag_grid"]

Weighted = tuple[Tensor, Tensor]

#: More points than that are not worth a test.
LIMIT = 2**20


def array_grid(support: constraints.Constraint, shape: torch.Size, points: int) -> Weighted | None:
    """Return values of shape ``(n, *shape)`` and their weights for entries with this support, None for too many."""
    size = shape.numel()
    points = points if size == 1 else 801
    if isinstance(support, Columns):
        of = {int(i): s for s, columns in zip(support.supports, support.columns, strict=True) for i in columns}
        supports: Sequence[constraints.Constraint] = [of[i] for i in range(size)]
    else:
        supports = [support] * size
    lengths = 1
    lines = []
    for support in supports:
        line = line_of(support, points)
        if line is None or lengths * len(line[0]) > LIMIT:
            return None
        lengths *= len(line[0])
        lines.append(line)
    dtype = torch.float64 if any(v.dtype == torch.float64 for v, _ in lines) else torch.float32
    values = torch.cartesian_prod(*(v.to(dtype) for v, _ in lines)).reshape(-1, *shape)
    weight = torch.cartesian_prod(*(w for _, w in lines)).reshape(-1, size).prod(-1)
    return values, weight


def line_of(support: constraints.Constraint, points: int) -> Weighted | None:
    """Return values and weights of a sum over one number."""
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if support is constraints.boolean:
        return counted(torch.arange(2.0))
    if isinstance(support, Grid):
        return counted(support.values().float())
    if support is constraints.nonnegative_integer:
        return counted(torch.arange(float(points)))
    if getattr(support, "is_discrete", False) and lower is not None and upper is not None:
        return counted(torch.arange(float(torch.as_tensor(lower).min()), float(torch.as_tensor(upper).max()) + 1))
    if support is constraints.real:
        return trapezium(torch.linspace(-40, 40, points))
    if support is constraints.unit_interval:
        return trapezium(torch.linspace(0, 1, points))
    # densities may be unbounded at an end: a change of variable takes it to infinity
    t, weight = trapezium(torch.linspace(-36, 36, points, dtype=torch.float64))
    if support is open_unit_interval:
        x = torch.sigmoid(t)
        return x, weight * x * (1 - x)
    if support is constraints.positive:
        return t.exp(), weight * t.exp()
    return None


def counted(values: Tensor) -> Weighted:
    """Return the values of a sum, each of weight one."""
    return values, torch.ones(len(values), dtype=torch.float64)


def trapezium(line: Tensor) -> Weighted:
    """Return equally spaced values and their weights."""
    weight = torch.full((len(line),), float(line[-1] - line[0]) / (len(line) - 1), dtype=torch.float64)
    weight[0] = weight[-1] = weight[0] / 2
    return line, weight


def bag_grid(support: Bags, shape: torch.Size) -> Weighted | None:
    """Return all arrays of counts with the total of a draw."""
    size = shape.numel()
    if math.comb(support.total + size - 1, size - 1) > LIMIT or (support.total + 1) ** (size - 1) > LIMIT:
        return None
    if size == 1:
        return torch.full((1, *shape), float(support.total)), torch.ones(())
    free = torch.cartesian_prod(*[torch.arange(support.total + 1.0)] * (size - 1)).reshape(-1, size - 1)
    free = free[free.sum(-1) <= support.total]
    return torch.cat([free, support.total - free.sum(-1, keepdim=True)], -1).reshape(-1, *shape), torch.ones(())
