"""The tail of importance weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["pareto_k"]

#: With fewer samples the tail has fewer than five.
MIN_SAMPLES = 25

#: A regularization of k towards 0.5, with the weight of this number of tail samples.
PRIOR_SIZE, PRIOR_K = 10, 0.5

#: Below this share of the largest weight the spread of a tail is rounding error.
ROUNDING = 1e-10


def pareto_k(log_w: Tensor) -> Tensor:
    r"""Estimate the tail shape k of importance weights, which shows whether their mean is reliable.

    The excess of the largest :math:`M = \min(S / 5, 3 \sqrt S)` of S weights over the next one follows a generalized
    Pareto distribution,

    .. math:: P(w > u + y \mid w > u) \approx (1 + k y / \sigma)^{-1/k},

    with 1/k finite moments. Up to k = 0.7 an importance-weighted mean is reliable for a practical S; above 1 the
    weights have no mean. k is the nearly Bayesian estimate of Zhang and Stephens, shrunk weakly towards 0.5.

    References:
        Pareto smoothed importance sampling (Vehtari et al., 2024), https://arxiv.org/abs/1507.02646;
        A new and efficient estimation method for the generalized Pareto distribution (Zhang and Stephens, 2009),
        https://doi.org/10.1198/tech.2009.08017

    Args:
        log_w: log-weights, of shape ``(samples, *batch)``

    Returns:
        k, of shape ``(*batch)``; minus infinity where the largest weights are all equal.

    Raises:
        ValueError: there are fewer than 25 samples.

    Example:
        >>> import torch
        >>> pareto_k(torch.randn(1000, 3)).shape
        torch.Size([3])
    """
    n = log_w.shape[0]
    if n < MIN_SAMPLES:
        raise ValueError(f"log_w: expected at least {MIN_SAMPLES} samples (rows), got shape {tuple(log_w.shape)}")
    size = min(n // 5, math.ceil(3 * math.sqrt(n)))
    ordered = log_w.double().sort(0).values
    weights = (ordered[-size - 1 :] - ordered[-1]).exp()
    tail = weights[1:] - weights[0]
    flat = tail[-1] < ROUNDING
    k = fit_shape(torch.where(flat, torch.linspace(0.1, 1.0, size).to(tail).reshape(-1, *[1] * flat.dim()), tail))
    k = (k * size + PRIOR_K * PRIOR_SIZE) / (size + PRIOR_SIZE)
    return torch.where(flat, -math.inf, k)


def fit_shape(y: Tensor) -> Tensor:
    """Return the shape of a generalized Pareto distribution from sorted excesses, of shape ``(samples, *batch)``."""
    n = y.shape[0]
    points = 30 + int(math.sqrt(n))
    grid = torch.arange(1, points + 1, dtype=y.dtype, device=y.device).reshape(-1, *[1] * (y.dim() - 1))
    quartile = y[int(n / 4 + 0.5) - 1].clamp(min=torch.finfo(y.dtype).tiny)
    # theta = -k / sigma, on a grid below 1 / max(y)
    theta = 1 / y[-1] + (1 - (points / (grid - 0.5)).sqrt()) / (3 * quartile)
    k = torch.log1p(-theta.unsqueeze(1) * y).mean(1)
    share = (n * ((-theta / k).log() - k - 1)).softmax(0)
    return torch.log1p(-(share * theta).sum(0) * y).mean(0)
