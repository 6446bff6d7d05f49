"""Results of imputation, and tables with imputed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.arrays import as_tensor
from pyro_vae._util.validation import check_number
from pyro_vae.data.tables import Table

__all__ = ["Imputation", "central_interval", "covered", "fill"]


@dataclass(frozen=True)
class Imputation:
    r"""Data with imputed entries.

    Attributes:
        x: the data with one value for each missing entry (the conditional mean; in a table the nearest value that the
            column can have, and in a Categorical column the most probable label), of shape ``(n, *shape)``, on the CPU
        samples: the data with missing entries sampled from :math:`p(x_m \mid x_o)`, of shape
            ``(num_samples, n, *shape)``
        missing: mask of the missing entries, of the shape of ``x``
        ess: effective sample size of the particles of each example, of shape ``(n,)``. At values near 1 the posterior
            does not fit data with missing entries, and neither means nor intervals are reliable
    """

    x: Tensor
    samples: Tensor
    missing: Tensor
    ess: Tensor

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Return the lower and upper ends of the central interval with probability ``level``, of the shape of ``x``.

        Both ends of an observed entry are its value.

        Raises:
            ValueError: the level is not a probability, or there are too few samples to estimate the ends.
        """
        return central_interval(self.samples, level, "Impute")

    def coverage(self, truth: Tensor, level: float) -> float:
        """Return the share of missing entries with their true value in the interval; ``level`` if that is correct."""
        return covered(self.check_truth(truth), *self.interval(level), self.missing)

    def squared_error(self, truth: Tensor) -> float:
        """Return the mean squared error of the imputed entries against the complete data, in squared units."""
        return float((self.x - self.check_truth(truth))[self.missing].double().square().mean())

    def check_truth(self, truth: Tensor) -> Tensor:
        """Return the true data, after a check that no missing entry lacks its value."""
        truth = as_tensor(truth).to(self.x)
        if truth.shape != self.x.shape or not torch.isfinite(truth[self.missing]).all():
            raise ValueError(
                f"truth: expected shape {tuple(self.x.shape)} with a number for every missing entry, got "
                f"{tuple(truth.shape)} with {int(torch.isnan(truth).sum()):,} NaN"
            )
        return truth

    def __repr__(self) -> str:
        return (
            f"Imputation({int(self.missing.sum()):,} of {self.missing.numel():,} entries, {len(self.samples)} samples"
            f"; median effective sample size {float(self.ess.median()):.0f})"
        )


def central_interval(samples: Tensor, level: float, again: str) -> tuple[Tensor, Tensor]:
    """Return the ends of the central interval of samples ``(num_samples, n, *shape)``; ``again`` is for the error."""
    check_number("level", level, above=0, below=1)
    if len(samples) * (1 - level) < 2:
        raise ValueError(
            f"level: an interval of {level:.0%} cannot be estimated from {len(samples)} samples. {again} with "
            f"num_samples={int(2 / (1 - level)) + 1} or more."
        )
    tail = (1 - level) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=samples.dtype)
    # in parts, as torch.quantile is limited to 16 million numbers
    parts = [torch.quantile(part, ends, 0) for part in samples.flatten(2).split(100, 1)]
    lower, upper = torch.cat(parts, 1).reshape(2, *samples.shape[1:])
    return lower, upper


def covered(truth: Tensor, lower: Tensor, upper: Tensor, mask: Tensor) -> float:
    """Return the share of the entries in the mask whose true value is in the interval."""
    return float(((lower <= truth) & (truth <= upper))[mask].double().mean())


def fill(data: Any, table: Table, x: Tensor) -> Any:
    """Return a copy of a table with imputed values for its missing entries.

    Args:
        data: the source of the table: a data frame, a dict of columns, a structured array, or an array
        table: ``Table(data, columns)``, which knows the types of the columns
        x: the imputed rows, such as ``impute(program, table.x).x``; observed entries are not read

    Returns:
        A table of the same kind, with the same columns and types, and those that the table leaves out. A numpy
        column of integers has no missing entries; integers with missing entries are floats, and remain floats.

    Raises:
        ValueError: ``x`` and the table differ in shape.

    Example:
        >>> import torch, pyro_vae as pv
        >>> data = {"age": [38.5, None, 55.2], "colour": ["red", "green", None]}
        >>> table = pv.data.Table(data)
        >>> fill(data, table, torch.tensor([[38.5, 0.0], [40.25, 0.0], [55.2, 1.0]]))["colour"].tolist()
        ['red', 'green', 'red']
    """
    if x.shape != table.x.shape:
        raise ValueError(f"x: expected the shape of the table, {tuple(table.x.shape)}, got {tuple(x.shape)}")
    own = table.like(data)
    found = own.decode(torch.where(torch.isnan(own.x), as_tensor(x).cpu().to(own.x), own.x))
    if isinstance(data, dict):
        return {**data, **found}
    if hasattr(data, "iloc"):
        frame = data.copy()
        for key in found:
            frame.isetitem(list(data.columns).index(key), found[key])
        return frame
    array = np.asarray(data).copy()
    for name, values in found.items():
        array[name if array.dtype.names else (slice(None), int(name))] = values
    return array
