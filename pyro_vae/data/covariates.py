"""Covariates: columns of a table that programs get as context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.validation import check_unique, nearest
from pyro_vae.data.tables import Column, Table
from pyro_vae.data.tables.frames import some

__all__ = ["encode_covariates", "entries"]


def encode_covariates(name: str, data: Any, covariates: Sequence[str | Column]) -> tuple[Tensor, tuple[Column, ...]]:
    """Return columns of a table as context: labels as one-hot vectors, numbers standardized.

    Args:
        name: name of the table, for error messages
        data: a data frame, or a dict of columns, which may have more columns
        covariates: names of the columns; or columns of an earlier table, so that both have the same codes

    Returns:
        The context of shape ``(n, width)``, and one column per covariate.

    Raises:
        ValueError: a column is not there, has missing values, or does not fit the earlier one.
    """
    known = tuple(c for c in covariates if isinstance(c, Column))
    names = [c.name if isinstance(c, Column) else c for c in covariates]
    check_unique("covariates", names)
    keys = {str(key): key for key in data}
    unknown = [n for n in names if n not in keys]
    if unknown:
        raise ValueError(
            f"covariates: expected columns of {name} ({some([*keys])}), got {unknown[0]}{nearest(unknown[0], keys)}"
        )
    frame = hasattr(data, "iloc")
    own = data[[keys[n] for n in names]] if frame else {n: data[keys[n]] for n in names}
    try:
        table = Table(own, known or None)
    except ValueError as error:
        raise ValueError(f"{name}: covariates: {error}") from error
    gaps = torch.isnan(table.x)
    if gaps.any():
        row, j = gaps.nonzero()[0].tolist()
        raise ValueError(
            f"{name}: covariates: expected a value of {names[j]!r} in each row, got none in row {row}. Fill it, or "
            "leave the row out"
        )
    parts = [column.context(values) for column, values in zip(table.columns, table.x.unbind(-1), strict=True)]
    return torch.cat(parts, -1), table.columns


def entries(columns: Sequence[Column]) -> list[str]:
    """Return what each entry of the context is."""
    return [entry for column in columns for entry in column.entries]
