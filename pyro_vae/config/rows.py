"""New data for a run: rows from a file as its program takes them, and results in the form of that file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import data, tasks
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

__all__ = ["Rows", "decode", "read_rows", "written"]


@dataclass(frozen=True)
class Rows:
    """New data for a run.

    Attributes:
        x: the data as the program takes them
        columns: columns of a run on a table
        cells: the table as it was read, by column, with columns that the run does not use; for other runs those of a
            .csv
        context: the covariates, or lengths and inputs of sequences, as far as there are some
    """

    x: Tensor
    columns: tuple[Column, ...] = ()
    cells: Mapping[str, np.ndarray] | None = None
    context: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def data(self, part: slice = slice(None)) -> Any:  # noqa: B008 (a slice is immutable)
        """Return rows as tasks take them: alone, or with their context."""
        return (self.x[part], *(column[part] for column in self.context)) if self.context else self.x[part]

    def like(self, x: Tensor, kind: str) -> Values:
        """Return data of the shape of ``x`` in the form in which the rows were read, for a file of this kind."""
        if self.columns:
            return {**self.cells, **decode(self.columns, x)}
        if self.cells is not None:
            return dict(zip(self.cells, x.flatten(1).T.numpy(), strict=True))
        return x.numpy()

    def filled(self, x: Tensor, kind: str) -> Values:
        """Return the rows with missing values filled from ``x``, and all other values unchanged."""
        if not self.columns:
            return self.like(x, kind)
        own = {c.name: self.cells[c.name] for c in self.columns}
        return {**self.cells, **tasks.fill(own, Table(own, self.columns), x)}


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


def read_rows(name: str, config: Mapping[str, Any], program: Program) -> Rows:
    """Read new data for the program of a run from a file, or the test split of a data set.

    Raises:
        ValueError: the data do not fit the run.
    """
    if not is_file(name):
        if "columns" in config:
            raise ValueError(f"INPUT: expected a table, as the run was trained on one, got the data set {name}")
        source = load({key: config.get(key) for key in ("binarize", "covariates")} | {"data": name})
        rows = Rows(source.dataset.test.batch(), context=() if source.context is None else (source.context.test.x,))
    else:
        read = read_sequences if "steps" in config else read_columns if "columns" in config else read_numbers
        rows = read(name, config)
    gaps = program.missing_entries(rows.x, *rows.context)
    if gaps.any() and not getattr(program, "missing", False):
        row, *entry = gaps.nonzero()[0].tolist()
        where = rows.columns[entry[0]].name if rows.columns else ", ".join(map(str, entry))
        raise ValueError(
            f"{name}: expected no missing values, got {int(gaps.sum()):,} of {gaps.numel():,} (such as {where} in "
            f"{files.place(name, row)}). Train a run with --missing"
        )
    check_rows(name, rows.x)
    try:
        program.check(rows.x, *rows.context)
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
        return Rows(x, columns, cells, (encode_covariates(path, cells, known)[0],) if known else ())
    except ValueError as error:
        raise ValueError(in_file(path, f"{path}: {error}")) from error


def without_values(cells: Mapping[str, np.ndarray], columns: Sequence[Column]) -> list[str]:
    """Return the names of columns that a run does not have and that have no value."""
    known = {column.name for column in columns}
    return [name for name, values in cells.items() if name not in known and blank(plain(values)).all()]


def read_sequences(path: str, config: Mapping[str, Any]) -> Sequences:
    """Read sequences with the channels and inputs of the run."""
    found = data.read(path, key=config.get("key"), layout="tc")
    own = {"channels": config["shape"][0], "inputs": config.get("inputs", 0)}
    new = {"channels": found.x.shape[2], "inputs": 0 if found.inputs is None else found.inputs.shape[2]}
    for what, number in own.items():
        if new[what] != number:
            raise ValueError(f"{path}: expected {number} {what} per step, as the run has, got {new[what]}")
    inputs = () if found.inputs is None else (found.inputs.float(),)
    return Sequences(found.x.float(), context=(found.lengths, *inputs))


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
    return Rows(x, (), cells, () if context is None else (context,))


def numbers_of(path: str, name: str, values: np.ndarray) -> np.ndarray:
    """Return a column of a .csv as numbers, NaN where one is missing."""
    cells, wrong, found = numbers_in(plain(values).astype(object), codes=False)
    if cells is None:
        row = int(wrong.argmax())
        where = files.place(path, row)
        raise ValueError(f"{path}: expected numbers in all columns, got text in {name}: {values[row]!r} in {where}")
    return np.array(found, float)
