"""Filled data back in the table that they came from."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.tables import named
from pyro_vae.data.tables.table import Table
from pyro_vae.data.tables.values import missing

__all__ = ["fill"]


def fill(data: Any, table: Table, x: Tensor) -> Any:
    """Return a copy of a table with imputed values in its holes, and all else as it was.

    Args:
        data: what the table was made of: a data frame, a dict of columns, a structured array, or an array
        table: ``Table(data, columns)``, which knows the types of the columns
        x: the imputed rows, such as ``impute(program, table.x).x``

    Returns:
        A table of the same kind, with the same columns and types. Columns of numpy integers have no holes; whole
        numbers with holes are floats, and stay so.

    Raises:
        ValueError: ``x`` has another shape than the table.

    Example:
        >>> import torch, pyro_vae as pv
        >>> data = {"age": [38.5, None, 55.2], "colour": ["red", "green", None]}
        >>> table = pv.data.Table(data)
        >>> fill(data, table, torch.tensor([[38.5, 0.0], [40.25, 0.0], [55.2, 1.0]]))["colour"].tolist()
        ['red', 'green', 'red']
    """
    if x.shape != table.x.shape:
        raise ValueError(f"x: expected shape {tuple(table.x.shape)}, that of the table, got {tuple(x.shape)}")
    numbers = x.detach().cpu().double().numpy()
    known, columns = {c.name: (c, values) for c, values in zip(table.columns, numbers.T, strict=True)}, {}
    for name, own, _ in named(data):
        (c, values), holes = known[name], missing(own)
        new = own.copy()
        if holes.any():
            new[holes] = c.decode(values[holes])
        columns[name] = new
    return rebuilt(data, columns)


def rebuilt(data: Any, columns: dict[str, np.ndarray]) -> Any:
    """Return columns in the kind of table that ``data`` is."""
    if hasattr(data, "iloc"):
        found = data.copy()
        for name, own in zip(columns, data.columns, strict=True):
            found[own] = type(data[own])(columns[name], index=data.index, dtype=data[own].dtype)
        return found
    if isinstance(data, dict):
        return columns
    found = copy.deepcopy(np.asarray(data))
    for i, (name, values) in enumerate(columns.items()):
        if found.dtype.names:
            found[name] = values
        else:
            found[:, i] = values
    return found
