"""New data for a run: rows as its program takes them, and results in the form of their file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import tasks
from pyro_vae.data import Table
from pyro_vae.data.files import Values
from pyro_vae.data.tables import Column

__all__ = ["Rows", "Sequences", "decode", "written"]


@dataclass(frozen=True)
class Rows:
    """New data for a run.

    Attributes:
        x: the data as the program takes them, NaN where a value is missing or impossible
        table: for a run on a table, the columns of the run
        cells: the table as it was read, by column, with columns that the run does not use; for other runs those of a
            .csv
        context: the covariates, or lengths and inputs of sequences, as far as there are some
        ids: columns that results keep, so that rows can be matched: those of a table that the run does not use, or
            the names of images or cells
        impossible: which rows have a value that the program cannot have, such as a new category
        usable: which rows have a result
        notes: one sentence about impossible values, and one about rows without any value
    """

    x: Tensor
    table: Table | None = None
    cells: Mapping[str, np.ndarray] | None = None
    context: tuple[Tensor, ...] = ()
    ids: Mapping[str, np.ndarray] = field(default_factory=dict)
    impossible: Tensor | None = None
    usable: Tensor | None = None
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of a run on a table."""
        return () if self.table is None else self.table.columns

    @property
    def numbers(self) -> Tensor | None:
        """The numbers of the usable rows in their file; None for all."""
        return None if self.usable is None else self.usable.nonzero().squeeze(1)

    def __len__(self) -> int:
        return len(self.x) if self.usable is None else int(self.usable.sum())

    def data(self, part: slice = slice(None)) -> Any:  # noqa: B008 (a slice is immutable)
        """Return rows that have a result as tasks take them: alone, or with their context."""
        own = [(v if self.usable is None else v[self.usable])[part] for v in (self.x, *self.context)]
        return tuple(own) if self.context else own[0]

    def spread(self, result: Tensor) -> Tensor:
        """Return the results of :meth:`data`, along the first dimension, with NaN for rows without a result."""
        if self.usable is None:
            return result
        found = result.new_full((len(self.x), *result.shape[1:]), torch.nan)
        found[self.usable] = result
        return found

    def labelled(self, results: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return columns of results after those that identify the rows."""
        return {**self.ids, **{f"{n} of the run" if n in self.ids else n: v for n, v in results.items()}}

    def like(self, x: Tensor, kind: str) -> Values:
        """Return data of the shape of ``x`` in the form in which the rows were read, for a file of this kind."""
        if self.table is not None:
            return {**self.cells, **decode(self.columns, x)}
        if self.cells is not None:
            return dict(zip(self.cells, x.flatten(1).T.numpy(), strict=True))
        return x.numpy()

    def filled(self, x: Tensor, kind: str) -> Values:
        """Return the rows with missing values filled from ``x``, and all other values unchanged."""
        if self.table is None:
            return self.like(x, kind)
        own = {c.name: self.cells[c.name] for c in self.columns}
        return {**self.cells, **tasks.fill(own, self.table, x)}


@dataclass(frozen=True)
class Sequences(Rows):
    """New sequences for a run; their context is their lengths, and inputs if there are some."""

    def like(self, x: Tensor, kind: str) -> Values:
        """Return sequences of these lengths as a file of this kind has them; see :func:`written`."""
        return written(kind, {"x": x}, self.context[0])


def written(kind: str, values: Mapping[str, Tensor], lengths: Tensor) -> Values:
    """Return sequences ``(n, steps, channels)`` by name as a file of this kind has them.

    A .csv has a row per step, with the numbers of sequence and step, from 0, before the channels. An .npy has NaN
    after the end of each sequence, and an .npz the lengths as well.
    """
    first = next(iter(values.values()))
    inside = torch.arange(first.shape[1]) < lengths.unsqueeze(-1)
    if kind == ".csv":
        sequence, step = inside.nonzero().T.numpy()
        names = [(name, c) for c in range(first.shape[2]) for name in values]
        columns = {
            f"{c}.{name}" if len(values) > 1 else f"{c}": values[name][inside][:, c].numpy() for name, c in names
        }
        return {"sequence": sequence, "step": step, **columns}
    padded = {name: torch.where(inside.unsqueeze(-1), x, torch.nan).numpy() for name, x in values.items()}
    if kind == ".npz":
        return {**padded, "lengths": lengths.numpy()}
    return np.stack([*padded.values()], 1) if len(values) > 1 else padded[next(iter(values))]


def decode(columns: tuple[Column, ...], x: Tensor) -> dict[str, np.ndarray]:
    """Return rows of numbers as the columns of a table."""
    return {column.name: column.decode(v) for column, v in zip(columns, x.numpy().T, strict=True)}
