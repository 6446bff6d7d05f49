"""Rows on their way through a command: from a file to the program of a run, and what came of them into a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import tasks
from pyro_vae._util.atomic_files import write_file
from pyro_vae.cli.choices import look_up
from pyro_vae.cli.data import array_of, is_file, load, numbers, refuse_empty_rows, table_of
from pyro_vae.config import run
from pyro_vae.data import Table, files
from pyro_vae.data.sources import LOADERS
from pyro_vae.data.tables import Column
from pyro_vae.programs import Program

__all__ = ["Rows", "Target", "decoded", "read_rows"]

Values = np.ndarray | dict[str, np.ndarray]


@dataclass(frozen=True)
class Rows:
    """Data of a command.

    Attributes:
        x: as the program takes them
        columns: of a run on a table
        cells: the table as it was read, by column, with that of the classes where it has one; of other runs the
            columns of a .csv
    """

    x: Tensor
    columns: tuple[Column, ...] = ()
    cells: Mapping[str, np.ndarray] | None = None

    def like(self, x: Tensor) -> Values:
        """Return data of the shape of ``x`` in the form in which the rows came."""
        if self.columns:
            found = decoded(self.columns, x)
            return {name: found.get(name, cells) for name, cells in self.cells.items()}
        if self.cells is not None:
            return dict(zip(self.cells, x.flatten(1).T.numpy(), strict=True))
        return x.numpy()

    def filled(self, x: Tensor) -> Values:
        """Return the rows with the values of ``x`` in their holes, and all else as it was."""
        if not self.columns:
            return self.like(x)
        own = {c.name: self.cells[c.name] for c in self.columns}
        return {**self.cells, **tasks.fill(own, Table(own, self.columns), shortest(x))}


def decoded(columns: tuple[Column, ...], x: Tensor) -> dict[str, np.ndarray]:
    """Return rows of numbers as the columns of a table."""
    values = shortest(x).numpy().T
    return {column.name: column.decode(v) for column, v in zip(columns, values, strict=True)}


def shortest(x: Tensor) -> Tensor:
    """Return as float64 the decimal numbers by which float32 are written: 0.1, and not 0.10000000149."""
    return torch.from_numpy(x.numpy().astype(str).astype(np.float64))


def read_rows(name: str, config: Mapping[str, Any], program: Program) -> Rows:
    """Read the data that a program is to be used for.

    Args:
        name: a file, or a data set, of which the test data are taken
        config: of the run
        program: of the run

    Raises:
        ValueError: the data do not fit what the run was trained on.
    """
    if not is_file(name):
        look_up("INPUT", name, LOADERS)
        if "columns" in config:
            raise ValueError(f"INPUT: the run was trained on a table, got the data set {name}")
        rows = Rows(load({"data": name, "binarize": config.get("binarize")}).dataset.test.x)
    else:
        rows = from_table(name, config) if "columns" in config else from_array(name, tuple(config["shape"]))
    holes = torch.isnan(rows.x)
    if holes.any() and not getattr(program, "missing", False):
        row, *entry = holes.nonzero()[0].tolist()
        where = rows.columns[entry[0]].name if rows.columns else ", ".join(map(str, entry))
        raise ValueError(
            f"{name}: row {row} (counted from 0) has no value of {where} ({int(holes.sum()):,} of {holes.numel():,} "
            "values are missing): this run was trained without missing entries; train one with --missing"
        )
    refuse_empty_rows(name, rows.x)
    try:
        program.check(rows.x)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return rows


def from_table(path: str, config: Mapping[str, Any]) -> Rows:
    """Read the columns on which a run was trained, in any order."""
    columns, content = run.columns(config), files.read(path)
    if isinstance(content, np.ndarray):
        if content.ndim != 2 or content.shape[1] != len(columns):
            raise ValueError(f"{path}: expected {len(columns)} columns, got an array of shape {content.shape}")
        content = dict(zip((c.name for c in columns), content.T, strict=True))
    known = {c.name: c for c in columns}
    cells = {name: files.typed(values, known.get(name)) for name, values in table_of(path, content).items()}
    own = {name: values for name, values in cells.items() if name != config.get("label")}
    try:
        return Rows(Table(own, columns).x, columns, cells)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_array(path: str, shape: tuple[int, ...]) -> Rows:
    """Read an array, or the columns of a .csv as one."""
    content = files.read(path)
    found, cells = array_of(content), None
    if found is None:
        cells = {name: files.typed(values) for name, values in table_of(path, content).items()}
        words = [name for name, values in cells.items() if not numeric(values)]
        if words:
            raise ValueError(f"{path}: expected numbers in all columns, got words in {', '.join(words[:5])}")
        found = np.stack([np.array(values, float) for values in cells.values()], 1)
    x = numbers(path, found)
    if cells is not None and x.shape[1] == np.prod(shape):
        x = x.reshape(-1, *shape)
    if x.shape[1:] != shape:
        raise ValueError(f"{path}: expected data of shape (n, {', '.join(map(str, shape))}), got {tuple(found.shape)}")
    return Rows(x, (), cells)


def numeric(values: np.ndarray) -> bool:
    """Whether cells are numbers, or missing."""
    return not any(isinstance(v, str) for v in values.tolist())


class Target:
    """Where a result goes: a new file, or the terminal as .csv.

    Args:
        path: of the file, None for the terminal

    Raises:
        ValueError: the file is there already, or its name does not end in a known way.
    """

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else Path(path)
        self.kind = ".csv" if path is None else files.ending(path)
        if self.path is not None and self.path.exists():
            raise ValueError(f"output: {path} is there already; name another file, or remove this one")

    def write(self, values: Values) -> None:
        """Write the result, whole or not at all."""
        content = files.encode(self.kind, values)
        if self.path is None:
            sys.stdout.write(content.decode())
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.path, content)
        rows = len(next(iter(values.values()))) if isinstance(values, dict) else len(values)
        print(f"{rows:,} rows are in {self.path}")
