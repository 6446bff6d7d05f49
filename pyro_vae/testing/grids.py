"""Values and weights of sums and integrals over a support, for the law that a density has mass one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.by_column import Columns
from pyro_vae.distributions.flattened import Flattened, FlattenedConstraint
from pyro_vae.distributions.poincare_ball import ball, farthest
from pyro_vae.distributions.sphere import sphere
from pyro_vae.distributions.supports import Bags, Grid, open_unit_interval, whole_numbers

__all__ = ["array_grid", "bag_grid", "ball_grid", "grid_of", "simplex_grid", "sphere_grid"]

Weighted = tuple[Tensor, Tensor | float]
Line = tuple[Tensor, Tensor]

#: Largest number of grid points.
LIMIT = 2**20


def grid_of(fn: TorchDistributionMixin, points: int) -> Weighted | None:
    """Return values and weights of a sum over the support of one example.

    Args:
        fn: a distribution with batch shape ()
        points: grid points per dimension

    Returns:
        Values ``(n, *event_shape)`` and weights ``(n,)``; None if the grid would be too large.
    """
    size = fn.event_shape.numel()
    support = fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if fn.has_enumerate_support:
        return fn.enumerate_support(), 1.0
    if isinstance(support, FlattenedConstraint) and support.is_discrete:  # one-hot vectors
        uniform = dist.OneHotCategorical(torch.ones(support.shape)).to_event(len(support.shape) - 1)
        return Flattened(uniform).enumerate_support(), 1.0
    if support is constraints.simplex:
        return simplex_grid(size, points)
    if support is sphere:
        return sphere_grid(size, points)
    if support is ball:
        return ball_grid(size, points)
    if isinstance(support, Bags):
        return bag_grid(support, fn.event_shape)
    return array_grid(support, fn.event_shape, points)


def midpoints(points: int) -> Tensor:
    """Return the midpoints of ``points`` equal intervals of [0, 1]."""
    return (torch.arange(points, dtype=torch.float64) + 0.5) / points


def simplex_grid(size: int, points: int = 2001) -> Weighted | None:
    """Return values ``(n, size)`` and weights of an integral over the simplex, None for a size above 3.

    The integral runs over the first ``size - 1`` coordinates, with ``points`` values each.
    """
    if size == 1:
        return torch.ones(1, 1), 1.0
    if size > 3:
        return None
    points = points if size == 2 else 801
    # equally spaced log-odds: a density may be infinite at a corner
    odds = 160 * (midpoints(points) - 0.5)
    share, rest = torch.sigmoid(odds), torch.sigmoid(-odds)
    step = share * rest * 160 / points
    if size == 2:
        return torch.stack([share, rest], -1).float(), step
    a, b = torch.cartesian_prod(torch.arange(points), torch.arange(points)).unbind(-1)
    # the second proportion is a fraction b of one minus the first
    values = torch.stack([share[a], rest[a] * share[b], rest[a] * rest[b]], -1)
    return values.float().clamp_min(torch.finfo(torch.float32).tiny), rest[a] * step[a] * step[b]


def sphere_grid(size: int, points: int = 2001) -> Weighted | None:
    """Return values ``(n, size)`` and weights of an integral over the unit sphere, None for a size above 3."""
    if size == 1:
        return torch.tensor([[-1.0], [1.0]]), 1.0
    if size == 2:
        angle = 2 * math.pi * midpoints(points)
        return torch.stack([angle.cos(), angle.sin()], -1).float(), 2 * math.pi / points
    if size > 3:
        return None
    points = 401
    # equally spaced heights cut the sphere into bands of equal area
    height, angle = torch.cartesian_prod(2 * midpoints(points) - 1, 2 * math.pi * midpoints(points)).unbind(-1)
    radius = (1 - height.square()).sqrt()
    values = torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)
    return values.float(), 4 * math.pi / points**2


def ball_grid(size: int, points: int = 2001) -> Weighted | None:
    """Return values ``(n, size)`` and weights of an integral over the inside of the unit ball, None above size 2."""
    directions = sphere_grid(size, 201) if size <= 2 else None
    if directions is None:
        return None
    around, area = directions
    # equally spaced hyperbolic distances: a density may be large near the edge
    most = farthest(torch.float32)
    radius = (most * midpoints(points) / 2).tanh()
    step = most / 2 * (1 - radius.square()) / points
    values = radius[:, None, None] * around
    weight = (step * radius ** (size - 1) * area)[:, None].expand(-1, len(around))
    return values.flatten(0, 1).float(), weight.flatten()


def array_grid(support: constraints.Constraint, shape: torch.Size, points: int) -> Weighted | None:
    """Return values ``(n, *shape)`` and weights for entries with this support, None above ``LIMIT`` points."""
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


def line_of(support: constraints.Constraint, points: int) -> Line | None:
    """Return values and weights of a sum or integral over one number."""
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if support is constraints.boolean:
        return counting(torch.arange(2.0))
    if isinstance(support, Grid):
        return counting(support.values().float())
    if support is whole_numbers:
        return counting(torch.arange(float(points)) - points // 2)
    if support is constraints.nonnegative_integer:
        return counting(torch.arange(float(points)))
    if getattr(support, "is_discrete", False) and lower is not None and upper is not None:
        return counting(torch.arange(float(torch.as_tensor(lower).min()), float(torch.as_tensor(upper).max()) + 1))
    if support is constraints.real:
        return trapezoid(torch.linspace(-40, 40, points))
    if support is constraints.unit_interval:
        return trapezoid(torch.linspace(0, 1, points))
    # a density may be unbounded at an end: a change of variables moves that end to infinity
    t, weight = trapezoid(torch.linspace(-36, 36, points, dtype=torch.float64))
    if support is open_unit_interval:
        x = torch.sigmoid(t)
        return x, weight * x * (1 - x)
    if support is constraints.positive:
        return t.exp(), weight * t.exp()
    return None


def counting(values: Tensor) -> Line:
    """Return values with weight one each."""
    return values, torch.ones(len(values), dtype=torch.float64)


def trapezoid(line: Tensor) -> Line:
    """Return equally spaced values with the weights of the trapezoidal rule."""
    weight = torch.full((len(line),), float(line[-1] - line[0]) / (len(line) - 1), dtype=torch.float64)
    weight[0] = weight[-1] = weight[0] / 2
    return line, weight


def bag_grid(support: Bags, shape: torch.Size) -> Weighted | None:
    """Return all arrays of counts that sum to the total of the support."""
    size = shape.numel()
    if math.comb(support.total + size - 1, size - 1) > LIMIT or (support.total + 1) ** (size - 1) > LIMIT:
        return None
    if size == 1:
        return torch.full((1, *shape), float(support.total)), torch.ones(())
    free = torch.cartesian_prod(*[torch.arange(support.total + 1.0)] * (size - 1)).reshape(-1, size - 1)
    free = free[free.sum(-1) <= support.total]
    return torch.cat([free, support.total - free.sum(-1, keepdim=True)], -1).reshape(-1, *shape), torch.ones(())
