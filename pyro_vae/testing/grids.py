"""Sums over the simplex and the sphere, for the law that a density has mass one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["simplex_grid", "sphere_grid"]

Grid = tuple[Tensor, Tensor | float]


def middles(points: int) -> Tensor:
    """Return the middles of ``points`` equal parts of [0, 1]."""
    return (torch.arange(points, dtype=torch.float64) + 0.5) / points


def simplex_grid(size: int, points: int = 2001) -> Grid | None:
    """Return values and weights of a sum over proportions, by their first ``size - 1`` coordinates.

    Args:
        size: how many proportions, up to 3
        points: how many values a coordinate

    Returns:
        Values ``(n, size)`` and weights, None for a larger size.
    """
    if size == 1:
        return torch.ones(1, 1), 1.0
    if size > 3:
        return None
    points = points if size == 2 else 801
    # equal steps of the log-odds: a density may rise to infinity at a corner
    odds = 160 * (middles(points) - 0.5)
    share, rest = torch.sigmoid(odds), torch.sigmoid(-odds)
    step = share * rest * 160 / points
    if size == 2:
        return torch.stack([share, rest], -1).float(), step
    a, b = torch.cartesian_prod(torch.arange(points), torch.arange(points)).unbind(-1)
    # the second proportion is a share b of what the first one leaves
    values = torch.stack([share[a], rest[a] * share[b], rest[a] * rest[b]], -1)
    return values.float().clamp_min(torch.finfo(torch.float32).tiny), rest[a] * step[a] * step[b]


def sphere_grid(size: int, points: int = 2001) -> Grid | None:
    """Return values and weights of a sum over the surface of the unit sphere.

    Args:
        size: how many coordinates, up to 3
        points: how many values an angle

    Returns:
        Values ``(n, size)`` and weights, None for a larger size.
    """
    if size == 1:
        return torch.tensor([[-1.0], [1.0]]), 1.0
    if size == 2:
        angle = 2 * math.pi * middles(points)
        return torch.stack([angle.cos(), angle.sin()], -1).float(), 2 * math.pi / points
    if size > 3:
        return None
    points = 401
    # equal steps of the height cut the sphere into bands of equal area
    height, angle = torch.cartesian_prod(2 * middles(points) - 1, 2 * math.pi * middles(points)).unbind(-1)
    radius = (1 - height.square()).sqrt()
    values = torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)
    return values.float(), 4 * math.pi / points**2
