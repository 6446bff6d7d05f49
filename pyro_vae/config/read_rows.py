"""Read new data for a run: rows from a file as its program takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import data
from pyro_vae._util.random_state import fork_rng
from pyro_vae.config import run
from pyro_vae.config.data import LABELS, is_file, load
from pyro_vae.config.places import in_file, in_rows
from pyro_vae.config.rows import Rows, Sequences
from pyro_vae.data import Table, files
from pyro_vae.data.covariates import encode_covariates
from pyro_vae.data.read import content_of, examples_of
from pyro_vae.data.readers import Options
from pyro_vae.data.rows import check_rows
from pyro_vae.data.tables import Column
from pyro_vae.data.tables.values import blank, objects, plain
from pyro_vae.data.tables.written import read_numbers as numbers_in
from pyro_vae.data.tidy import INDEX
from pyro_vae.programs import Program
from pyro_vae.programs.checks import entry_support
from pyro_vae.programs.program import evaluating

__all__ = ["read_rows"]


def read_rows(name: str, config: Mapping[str, Any], program: Program, *, each: bool = False) -> Rows:
    """Read new data for the program of a run from a file, or the test split of a data set.

    Args:
        name: the file or data set
        config: the configuration of the run
        program: its program
        each: whether a row with a value that the program cannot have, or without any value, is reported instead of an
            error. Such a value counts as missing, and a row that the program cannot take has no result

    Raises:
        ValueError: the data do not fit the run.
    """
    if not is_file(name):
        if "columns" in config:
            raise ValueError(f"INPUT: expected a table, as the run was trained on one, got the data set {name}")
        source = load({key: config.get(key) for key in ("binarize", "covariates")} | {"data": name})
        rows = Rows(source.dataset.test.batch(), context=() if source.context is None else (source.context.test.x,))
    elif "steps" in config:
        rows = read_sequences(name, config)
    elif "columns" in config:
        rows = read_columns(name, config, each)
    else:
        rows = read_numbers(name, config)
    found = usable_rows(name, rows, program) if each and not isinstance(rows, Sequences) else rows
    if found.usable is not None and not found.usable.any():
        return read_rows(name, config, program)  # with the error about the first row
    x, *context = found.data() if found.context else (found.data(),)
    gaps = program.missing_entries(x, *context)
    if gaps.any() and not getattr(program, "missing", False):
        row, *entry = gaps.nonzero()[0].tolist()
        row = row if found.numbers is None else int(found.numbers[row])
        where = rows.columns[entry[0]].name if rows.columns else ", ".join(map(str, entry))
        raise ValueError(
            f"{name}: expected no missing values, got {int(gaps.sum()):,} of {gaps.numel():,} (such as {where} in "
            f"{files.place(name, row)}). Train a run with --missing"
        )
    check_rows(name, x)
    try:
        program.check(x, *context)
    except ValueError as error:
        raise ValueError(f"{name}: {in_rows(name, rows.columns, str(error), found.numbers)}") from error
    return found


def usable_rows(name: str, rows: Rows, program: Program) -> Rows:
    """Return rows with impossible values as missing ones, which rows have a result, and notes about the others."""
    x = rows.x
    wrong = impossible_entries(program, x, *rows.context) if rows.table is None else rows.table.invalid
    impossible, x = wrong.flatten(1).any(1), torch.where(wrong, torch.nan, x)
    empty = torch.isnan(x).flatten(1).all(1)
    takes_missing = bool(getattr(program, "missing", False))
    usable = ~empty & (~impossible | takes_missing)
    notes = []
    if impossible.any():
        row, *entry = wrong.nonzero()[0].tolist()
        where = in_rows(name, rows.columns, f"x[{', '.join(map(str, [row, *entry]))}]")
        column = rows.columns[entry[0]] if rows.columns else None
        value = f"{rows.x[row][tuple(entry)]:.6g}" if column is None else rows.cells[column.name][row]
        kind = f", which a column of type {type(column).__name__} cannot have" if column else ""
        notes.append(
            f"{name}: {counted(wrong, 'value')} that the run cannot have, in {counted(impossible, 'row')}: {where} is "
            f"{value}{kind}. {'Such values count as missing' if takes_missing else 'Such rows have no result'}, and "
            "the score of such a row is infinite"
        )
    if (blank_rows := empty & ~impossible).any():
        first = files.place(name, int(blank_rows.nonzero()[0]))
        notes.append(
            f"{name}: {counted(blank_rows, 'row')} without any value, so without a result, such as in {first}"
        )
    return replace(rows, x=x, impossible=impossible, usable=usable, notes=tuple(notes))


def counted(mask: Tensor, what: str) -> str:
    """Return how many entries of a mask are true, in words."""
    n = int(mask.sum())
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def impossible_entries(program: Program, x: Tensor, *context: Tensor) -> Tensor:
    """Return which entries are outside of the support of the likelihood, or infinite."""
    wrong = torch.isinf(x)
    if type(program).decode_prior is Program.decode_prior:
        return wrong
    with evaluating(program), fork_rng(program.device, 0):
        fn = program.decode_prior(1, *(column[:1].to(program.device) for column in context))
    outside = ~entry_support(fn.support).check(x.to(program.device)).cpu()
    outside = outside.reshape(*outside.shape, *[1] * (x.dim() - outside.dim()))
    return wrong | (outside & ~torch.isnan(x))


def read_columns(path: str, config: Mapping[str, Any], each: bool) -> Rows:
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
    known = run.columns(config, "context")
    try:
        table = Table(own, columns, leave_out=without_values(own, columns), invalid_as_missing=each)
        context = (encode_covariates(path, cells, known)[0],) if known else ()
    except ValueError as error:
        raise ValueError(in_file(path, f"{path}: {error}")) from error
    ids = {name: values for name, values in cells.items() if name not in table.names}
    return Rows(table.x, table, cells, context, ids)


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
    return Rows(x, None, cells, () if context is None else (context,), content.ids)


def numbers_of(path: str, name: str, values: np.ndarray) -> np.ndarray:
    """Return a column of a .csv as numbers, NaN where one is missing."""
    cells, wrong, found = numbers_in(plain(values).astype(object), codes=False)
    if cells is None:
        row = int(wrong.argmax())
        where = files.place(path, row)
        raise ValueError(f"{path}: expected numbers in all columns, got text in {name}: {values[row]!r} in {where}")
    return np.array(found, float)
