"""New data for a run: rows from a file as its program takes them, and results in the form of that file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import tasks
from pyro_vae.config import run
from pyro_vae.config.data import LABELS, is_file, load
from pyro_vae.config.places import in_file, in_rows
from pyro_vae.data import Table, files
from pyro_vae.data.covariates import encode_covariates
from pyro_vae.data.files import Values
from pyro_vae.data.read import content_of, examples_of
from pyro_vae.data.readers import Options
from pyro_vae.data.rows import check_rows
from pyro_vae.data.tables import Column
from pyro_vae.data.tables.values import blank, objects, plain
from pyro_vae.data.tables.written import read_numbers as numbers_in
from pyro_vae.data.tidy import INDEX
from pyro_vae.programs import Program

__all__ = ["Rows", "decode", "read_rows"]


@dataclass(frozen=True)
class Rows:
    """New data for a run.

    Attributes:
        x: the data as the program takes them
        columns: columns of a run on a table
        cells: the table as it was read, by column, with columns that the run does not use; for other runs those of a
            .csv
        context: the covariates, or None
    """

    x: Tensor
    columns: tuple[Column, ...] = ()
    cells: Mapping[str, np.ndarray] | None = None
    context: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def data(self, part: slice = slice(None)) -> Any:  # noqa: B008 (a slice is immutable)
        """Return rows as tasks take them: alone, or with their covariates."""
        return self.x[part] if self.context is None else (self.x[part], self.context[part])

    def like(self, x: Tensor) -> Values:
        """Return data of the shape of ``x`` in the form in which the rows were read."""
        if self.columns:
            return {**self.cells, **decode(self.columns, x)}
        if self.cells is not None:
            return dict(zip(self.cells, x.flatten(1).T.numpy(), strict=True))
        return x.numpy()

    def filled(self, x: Tensor) -> Values:
        """Return the rows with missing values filled from ``x``, and all other values unchanged."""
        if not self.columns:
            return self.like(x)
        own = {c.name: self.cells[c.name] for c in self.columns}
        return {**self.cells, **tasks.fill(own, Table(own, self.columns), x)}


def decode(columns: tuple[Column, ...], x: Tensor) -> dict[str, np.ndarray]:
    """Return rows of numbers as the columns of a table."""
    return {column.name: column.decode(v) for column, v in zip(columns, x.numpy().T, strict=True)}


def read_rows(name: str, config: Mapping[str, Any], program: Program) -> Rows:
    """Read new data for the program of a run from a file, or the test split of a data set.

    Raises:
        ValueError: the data do not fit the run.
    """
    if not is_file(name):
        if "columns" in config:
            raise ValueError(f"INPUT: expected a table, as the run was trained on one, got the data set {name}")
        source = load({key: config.get(key) for key in ("binarize", "covariates")} | {"data": name})
        rows = Rows(source.dataset.test.batch(), context=source.context and source.context.test.x)
    else:
        rows = (read_columns if "columns" in config else read_numbers)(name, config)
    gaps = torch.isnan(rows.x)
    if gaps.any() and not getattr(program, "missing", False):
        row, *entry = gaps.nonzero()[0].tolist()
        where = rows.columns[entry[0]].name if rows.columns else ", ".join(map(str, entry))
        raise ValueError(
            f"{name}: expected no missing values, got {int(gaps.sum()):,} of {gaps.numel():,} (such as {where} in "
            f"{files.place(name, row)}). Train a run with --missing"
        )
    check_rows(name, rows.x)
    try:
        program.check(rows.x, *([] if rows.context is None else [rows.context]))
    except ValueError as error:
        raise ValueError(f"{name}: {in_rows(name, rows.columns, str(error))}") from error
    return rows


def read_columns(path: str, config: Mapping[str, Any]) -> Rows:
    """Read the columns on which a run was trained, in any order."""
    columns, content = run.columns(config), content_of(path, path, Options(key=config.get("key")))
    cells = content.columns
    if cells is None:
        shape = tuple(content.rows.shape)
        if len(shape) != 2 or shape[1] != len(columns):
            raise ValueError(f"{path}: expected {len(columns)} columns, got an array of shape {shape}")
        cells = dict(zip((c.name for c in columns), np.asarray(content.rows).T, strict=True))
    cells = {name: v if isinstance(v, np.ndarray) else objects(v) for name, v in cells.items()}
    # the label and the columns that were left out may be there
    unused = {config.get("label"), *(config.get("leave_out") or ()), *(config.get("covariates") or ())}
    unused |= {n for n in INDEX if n not in {c.name for c in columns}}
    own = {name: values for name, values in cells.items() if name not in unused}
    try:
        x, known = Table(own, columns, leave_out=without_values(own, columns)).x, run.columns(config, "context")
        return Rows(x, columns, cells, encode_covariates(path, cells, known)[0] if known else None)
    except ValueError as error:
        raise ValueError(in_file(path, f"{path}: {error}")) from error


def without_values(cells: Mapping[str, np.ndarray], columns: Sequence[Column]) -> list[str]:
    """Return the names of columns that a run does not have and that have no value."""
    known = {column.name for column in columns}
    return [name for name, values in cells.items() if name not in known and blank(plain(values)).all()]


def read_numbers(path: str, config: Mapping[str, Any]) -> Rows:
    """Read an array, or the columns of a table as one."""
    shape, cells = tuple(config["shape"]), None
    known = run.columns(config, "context")
    options = Options(key=config.get("key"), layout=config.get("layout"), size=config.get("size"))
    content = content_of(
        path, path, replace(options, covariates=[] if config.get("covariates") == [LABELS] else known)
    )
    context = content.context
    if content.columns is not None:
        cells = {name: np.asarray(values) for name, values in content.columns.items()}
        array = np.stack([numbers_of(path, name, values) for name, values in cells.items()], 1)
        x = torch.from_numpy(array.astype(np.float32))
        x = x.reshape(-1, *shape) if x.shape[1] == np.prod(shape) else x
    else:
        levels = config.get("levels") if "uint8" in str(content.rows.dtype) else None
        options = replace(options, keep_empty=True)
        x = examples_of(path, content, replace(options, levels=levels)).batch().float()
    if x.shape[1:] != shape:
        raise ValueError(f"{path}: expected data of shape (n, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    if known and context is None:
        if content.labels is None:
            raise ValueError(f"{path}: expected labels, which are the covariate of the run, got none")
        context, _ = encode_covariates(path, {LABELS: np.asarray(content.labels)}, known)
    return Rows(x, (), cells, context)


def numbers_of(path: str, name: str, values: np.ndarray) -> np.ndarray:
    """Return a column of a .csv as numbers, NaN where one is missing."""
    cells, wrong, found = numbers_in(plain(values).astype(object), codes=False)
    if cells is None:
        row = int(wrong.argmax())
        where = files.place(path, row)
        raise ValueError(f"{path}: expected numbers in all columns, got text in {name}: {values[row]!r} in {where}")
    return np.array(found, float)
