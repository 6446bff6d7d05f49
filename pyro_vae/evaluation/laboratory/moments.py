"""Statistics of random gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Moments", "own_bias"]


class Moments:
    """Mean and variance of vectors by running sums, so that memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, vector: Tensor) -> None:
        """Add one vector."""
        vector = vector.double()
        if not self.count:
            self.mean, self.squares = torch.zeros_like(vector), torch.zeros_like(vector)
        self.count += 1
        apart = vector - self.mean
        self.mean.add_(apart, alpha=1 / self.count)
        self.squares.addcmul_(apart, vector - self.mean)

    @property
    def variance(self) -> Tensor:
        """Variance of each entry."""
        return self.squares / max(self.count - 1, 1)

    @property
    def square_error(self) -> float:
        """Expected squared distance of the mean from the expectation."""
        return float(self.variance.sum()) / max(self.count, 1)

    @property
    def norm(self) -> float:
        """Norm of the expectation, corrected for noise; 0 if the mean is within its noise."""
        square = float(self.mean.square().sum())
        return math.sqrt(square - self.square_error) if square > 2 * self.square_error else 0.0

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio, averaged over the entries that are not always zero."""
        mean, std = self.mean.abs(), self.variance.sqrt()
        alive = (mean > 0) | (std > 0)
        return float((mean / std)[alive].mean()) if alive.any() else math.nan

    def bias(self, reference: Moments | None) -> tuple[float, float, float]:
        """Return the relative bias against a reference, its error and the cosine, with norms corrected for noise."""
        if reference is None:
            return math.nan, math.nan, math.nan
        square_error = self.square_error + reference.square_error
        size, other = self.norm, reference.norm
        bias = math.sqrt(max(float((self.mean - reference.mean).square().sum()) - square_error, 0.0))
        product = float(self.mean @ reference.mean)
        cosine = max(-1.0, min(1.0, product / (size * other))) if size * other > 0 else math.nan
        return (bias / other, math.sqrt(square_error) / other, cosine) if other > 0 else (math.nan, math.nan, cosine)


def own_bias(slopes: Tensor | None) -> tuple[float, float]:
    """Return the relative error of a gradient along its direction, and its standard error."""
    if slopes is None:
        return math.nan, math.nan
    objective, gradient = slopes
    size = float(gradient.mean())
    if size < 3 * float(gradient.std()) / math.sqrt(len(gradient)):
        return math.nan, math.nan
    apart = gradient - objective
    return float(apart.mean()) / size, float(apart.std()) / math.sqrt(len(apart)) / size
