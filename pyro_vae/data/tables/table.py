"""Tables with mixed columns as tensors, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.tables import Column, infer, named

__all__ = ["Table"]


class Table:
    """A table as one float tensor, and the way back to its columns and types.

    Args:
        data: a pandas data frame, a dict of columns, a structured array, or an array (rows, columns)
        columns: objects of ``pyro_vae.data.tables``, one per column, in the order of ``x``; inferred from the data
            if None. Those of a training set are given for a test set, so that both have the same codes

    Attributes:
        x: float32 of shape (rows, columns): numbers as they are, labels as codes 0, 1, 2, ..., NaN for what is missing
        columns: one object a column

    Raises:
        ValueError: columns that do not fit the data, or a value that a column does not know.

    Example:
        >>> table = Table({"age": [38.5, None, 55.2], "colour": ["red", "green", "red"]})
        >>> table.x.shape, table.names
        (torch.Size([3, 2]), ('age', 'colour'))
        >>> table.decode(torch.tensor([[40.0, 1.0]]))
        {'age': array([40.0], dtype=object), 'colour': array(['red'], dtype='<U5')}
    """

    def __init__(self, data: Any, columns: Sequence[Column] | None = None) -> None:
        parts = list(named(data))
        if columns is None:
            columns = [infer(name, values, order) for name, values, order in parts]
        own, given = [name for name, _, _ in parts], [c.name for c in columns]
        if sorted(own) != sorted(given):
            differ = [
                f"{what}: {', '.join(names)}"
                for what, names in (
                    ("missing", [name for name in given if name not in own]),
                    ("not asked for", [name for name in own if name not in given]),
                )
                if names
            ]
            raise ValueError(f"columns: expected {', '.join(given)}; {'; '.join(differ)}")
        order = [own.index(name) for name in given]
        self.columns = tuple(columns)
        rows = [c.encode(parts[i][1]) for c, i in zip(self.columns, order, strict=True)]
        self.x = torch.from_numpy(np.stack(rows, -1).astype(np.float32))
        self._frame = type(data) if hasattr(data, "iloc") else None
        kinds = list(data.dtypes) if self._frame else [values.dtype for _, values, _ in parts]
        self._kinds = [kinds[i] for i in order]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(c.name for c in self.columns)

    def decode(self, x: Tensor) -> Any:
        """Return rows ``(n, columns)`` as a table: a data frame if the data were one, otherwise a dict of arrays."""
        if x.dim() != 2 or x.shape[1] != len(self.columns):
            raise ValueError(f"x: expected shape (n, {len(self.columns)}), got {tuple(x.shape)}")
        numbers = x.detach().cpu().numpy()
        values = {c.name: c.decode(v) for c, v in zip(self.columns, numbers.T, strict=True)}
        if self._frame:
            values = self._frame(values)
        for name, kind in zip(self.names, self._kinds, strict=True):
            whole = not np.isnan(numbers[:, self.names.index(name)]).any()
            # numpy's integers, truth values and strings have no way to be missing
            if whole or not isinstance(kind, np.dtype) or kind.kind not in "iubSU":
                values[name] = values[name].astype(kind)
        return values

    def __repr__(self) -> str:
        kinds = ", ".join(f"{c.name} {type(c).__name__}" for c in self.columns)
        return f"Table({len(self.x)} rows; {kinds})"
