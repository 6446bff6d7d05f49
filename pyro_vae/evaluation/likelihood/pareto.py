"""The tail of importance weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["pareto_k"]

#: Fewer draws have a tail shorter than five.
LEAST = 25

#: A regularization of k towards 0.5, worth so many observations of the tail.
PRIOR_SIZE, PRIOR_K = 10, 0.5

#: Below this share of the largest weight the spread of a tail is rounding.
ROUNDING = 1e-10


def pareto_k(log_w: Tensor) -> Tensor:
    r"""Estimate the shape k of the tail of importance weights, which tells whether they can be averaged.

    The largest :math:`M = \min(S / 5, 3 \sqrt S)` of S weights, less the next one, follow a generalized Pareto
    distribution,

    .. math:: P(w > u + y \mid w > u) \approx (1 + k y / \sigma)^{-1/k},

    with 1/k finite moments. Up to k = 0.7 an importance-weighted mean is reliable at a practical S, above 1 the
    weights have no mean. The fit is the nearly Bayesian one of Zhang and Stephens, drawn weakly towards 0.5.

    References:
        Pareto smoothed importance sampling (Vehtari et al., 2024), https://arxiv.org/abs/1507.02646;
        A new and efficient estimation method for the generalized Pareto distribution (Zhang and Stephens, 2009),
        https://doi.org/10.1198/tech.2009.08017

    Args:
        log_w: log-weights, of shape ``(draws, *batch)``

    Returns:
        k, of shape ``(*batch)``; minus infinity where the largest weights are all the same.

    Raises:
        ValueError: fewer than 25 draws, whose tail is shorter than five.

    Example:
        >>> import torch
        >>> pareto_k(torch.randn(1000, 3)).shape
        torch.Size([3])
    """
    draws = log_w.shape[0]
    if draws < LEAST:
        raise ValueError(
            f"log_w: expected at least {LEAST} draws along the first dimension, got shape {tuple(log_w.shape)}"
        )
    size = min(draws // 5, math.ceil(3 * math.sqrt(draws)))
    ordered = log_w.double().sort(0).values
    weights = (ordered[-size - 1 :] - ordered[-1]).exp()
    tail = weights[1:] - weights[0]
    flat = tail[-1] < ROUNDING
    k = fit_shape(torch.where(flat, torch.linspace(0.1, 1.0, size).to(tail).reshape(-1, *[1] * flat.dim()), tail))
    k = (k * size + PRIOR_K * PRIOR_SIZE) / (size + PRIOR_SIZE)
    return torch.where(flat, -math.inf, k)


def fit_shape(y: Tensor) -> Tensor:
    """Return the shape of a generalized Pareto distribution from exceedances in rising order, (draws, *batch)."""
    n = y.shape[0]
    points = 30 + int(math.sqrt(n))
    grid = torch.arange(1, points + 1, dtype=y.dtype, device=y.device).reshape(-1, *[1] * (y.dim() - 1))
    quartile = y[int(n / 4 + 0.5) - 1].clamp(min=torch.finfo(y.dtype).tiny)
    # theta = -k / sigma, on a grid below 1 / max(y)
    theta = 1 / y[-1] + (1 - (points / (grid - 0.5)).sqrt()) / (3 * quartile)
    k = torch.log1p(-theta.unsqueeze(1) * y).mean(1)
    share = (n * ((-theta / k).log() - k - 1)).softmax(0)
    return torch.log1p(-(share * theta).sum(0) * y).mean(0)
