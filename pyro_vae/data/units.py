"""Means and standard deviations of the columns of an array."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae.data.dataset import Split
from pyro_vae.data.tables import Binary, Column, Count, Real
from pyro_vae.data.tables.infer import LEAST_DISPERSION
from pyro_vae.data.tables.ranged import SMALLEST

__all__ = ["channel_columns", "real_columns"]

#: Most columns that are printed.
MOST = 20


def real_columns(rows: Split) -> tuple[list[Real], str]:
    """Return the columns of an array with their means and standard deviations as units, and a table of them."""
    here = sum((~chunk.isnan()).sum(0) for chunk in rows.chunks())
    mean = sum(chunk.double().nansum(0) for chunk in rows.chunks()) / here
    std = (sum((chunk.double() - mean).square().nansum(0) for chunk in rows.chunks()) / here).sqrt()
    # the unit of a column of equal numbers is 1
    pairs = torch.stack([mean, std], 1).tolist()
    units = [Real(str(i), m, s if s > max(SMALLEST, 1e-7 * abs(m)) else 1.0) for i, (m, s) in enumerate(pairs)]
    return units, table_of(units, units, (len(rows) - here).tolist())


def channel_columns(steps: Tensor) -> tuple[list[Column], str]:
    """Return the channels of all steps ``(n, channels)`` as columns with their units, and a table of them.

    A channel of 0 and 1 alone is Binary, one of other integers from 0 is Count unless they vary far less than counts
    do, and all others are Real.
    """
    units, _ = real_columns(Split(steps))
    columns = [channel(unit, values[~values.isnan()]) for unit, values in zip(units, steps.unbind(1), strict=True)]
    return columns, table_of(columns, units, steps.isnan().sum(0).tolist())


def channel(unit: Real, values: Tensor) -> Column:
    """Return the column of a channel, given its observed values."""
    if values.min() < 0 or (values != values.round()).any() or values.max() == values.min():
        return unit
    if values.max() == 1:
        return Binary(unit.name, (0, 1))
    # beyond this size all floating-point numbers are integers
    counts = values.max() * torch.finfo(values.dtype).eps < 0.5 and unit.scale**2 >= LEAST_DISPERSION * unit.shift
    return Count(unit.name, unit.shift) if counts else unit


def table_of(columns: Sequence[Column], units: Sequence[Real], holes: Sequence[int]) -> str:
    """Return names, types, units and numbers of missing values as a table."""
    lines = [("column", "type", "unit (std)", "mean", "missing")]
    lines += [
        (c.name, type(c).__name__, f"{u.scale:.4g}", f"{u.shift:.4g}", f"{n:,}")
        for c, u, n in zip(columns, units, holes, strict=True)
    ]
    more = [f"... and {len(columns) - MOST:,} more"] if len(columns) > MOST else []
    shown = lines[: MOST + 1]
    widths = [max(map(len, cells)) for cells in zip(*shown, strict=True)]
    table = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in shown]
    return "\n".join(table + more)
