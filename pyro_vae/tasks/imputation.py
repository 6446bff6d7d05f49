"""What imputing gives: one value a hole, several, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Imputation"]


@dataclass(frozen=True)
class Imputation:
    r"""Data whose missing entries were filled.

    Attributes:
        x: the data with one value in each hole (the conditional mean; the most probable code of a Categorical
            column), of shape ``(n, *shape)``, on the CPU
        draws: the data with values drawn from :math:`p(x_m \mid x_o)` in the holes, of shape ``(draws, n, *shape)``
        missing: where the holes were, of the shape of ``x``
        ess: effective number of the particles that stand behind each datum, of shape ``(n,)``: values near 1 say that
            the posterior does not fit data with holes, and that nothing but the widths of intervals shows it
    """

    x: Tensor
    draws: Tensor
    missing: Tensor
    ess: Tensor

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Return the central interval of the draws at each entry.

        Args:
            level: probability of the interval, such as 0.9

        Returns:
            Its ends, each of the shape of ``x``; both are the observed value where there is one.

        Raises:
            ValueError: the level is no probability, or there are too few draws to find the ends.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, got {level}")
        if len(self.draws) * (1 - level) < 2:
            raise ValueError(
                f"level: the ends of an interval of {level:.0%} are not found from {len(self.draws)} draws; impute "
                f"with draws={int(2 / (1 - level)) + 1} or more"
            )
        tail = (1 - level) / 2
        ends = torch.tensor([tail, 1 - tail], dtype=self.draws.dtype)
        # a row at a time: torch.quantile takes up to 16 million numbers
        found = [torch.quantile(part, ends, 0) for part in self.draws.flatten(2).split(100, 1)]
        lower, upper = torch.cat(found, 1).reshape(2, *self.x.shape)
        return lower, upper

    def coverage(self, truth: Tensor, level: float) -> float:
        """Return the share of holes whose true value lies in their interval; close to the level if it is right.

        Args:
            truth: the data without holes, of the shape of ``x``
            level: probability of the intervals
        """
        lower, upper = self.interval(level)
        truth = self.checked(truth)
        inside = (lower <= truth) & (truth <= upper)
        return float(inside[self.missing].double().mean())

    def squared_error(self, truth: Tensor) -> float:
        """Return the mean squared error of the holes, in the units of the data.

        Args:
            truth: the data without holes, of the shape of ``x``
        """
        return float((self.x - self.checked(truth))[self.missing].double().square().mean())

    def checked(self, truth: Tensor) -> Tensor:
        """Refuse a truth that is not one for these data."""
        truth = torch.as_tensor(truth).to(self.x)
        if truth.shape != self.x.shape or not torch.isfinite(truth[self.missing]).all():
            raise ValueError(
                f"truth: expected shape {tuple(self.x.shape)} with a number in every hole, got {tuple(truth.shape)} "
                f"with {int(torch.isnan(truth).sum()):,} NaN"
            )
        return truth

    def __repr__(self) -> str:
        return (
            f"Imputation({int(self.missing.sum()):,} of {self.missing.numel():,} entries, {len(self.draws)} draws; "
            f"median effective sample size {float(self.ess.median()):.0f})"
        )
