"""Means and standard deviations of the columns of an array."""

from __future__ import annotations

import torch

from pyro_vae.data.dataset import Split
from pyro_vae.data.tables import Real
from pyro_vae.data.tables.ranged import SMALLEST

__all__ = ["real_columns"]

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
    holes = (len(rows) - here).tolist()
    lines = [("column", "type", "unit (std)", "mean", "missing")]
    lines += [
        (c.name, "Real", f"{c.scale:.4g}", f"{c.shift:.4g}", f"{n:,}") for c, n in zip(units, holes, strict=True)
    ]
    more = [f"... and {len(units) - MOST:,} more"] if len(units) > MOST else []
    widths = [max(map(len, cells)) for cells in zip(*lines[: MOST + 1], strict=True)]
    table = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines[: MOST + 1]]
    return units, "\n".join(table + more)
