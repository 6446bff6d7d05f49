"""The training data of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import data, tasks
from pyro_vae.config import run
from pyro_vae.config.places import in_file, in_rows
from pyro_vae.data import Dataset, Examples, Split
from pyro_vae.data.covariates import encode_covariates
from pyro_vae.data.dataset import Levels
from pyro_vae.data.read import is_source
from pyro_vae.data.rows import check_rows, split_rows
from pyro_vae.data.tables import Categorical, Column
from pyro_vae.data.units import real_columns

__all__ = ["LABELS", "Source", "is_file", "load", "read_file", "to_fit"]

#: Name of the labels of arrays and data sets as a covariate.
LABELS = "y"
#: Options of a run that are those of ``pyro_vae.data.read``.
OPTIONS = ("label", "layout", "levels", "size", "key", "keep_empty", "keep_index")


@dataclass(frozen=True)
class Source:
    """The training data of a run.

    Attributes:
        dataset: three splits; labels are class numbers, -1 where a label is missing
        kind: ``"binary"``, ``"grey"``, ``"real"``, ``"real columns"``, ``"counts"``, ``"sparse counts"``,
            ``"mixed"`` (a table) or ``"sequences"``, which sets the default likelihood
        facts: entries for the configuration: ``shape`` (of one step of sequences), ``columns`` of a table, ``units``
            of an array with real columns or of the channels of sequences, ``classes``, the labels, ``context``, the
            columns of the covariates, and of sequences the largest number of ``steps`` and the number of ``inputs``
        columns: what was read and chosen; for a table one line per column
        context: the covariates in three splits, or None
        rows: numbers of the training rows in the file, None for a data set
        holes: whether entries of sequences are missing
    """

    dataset: Dataset
    kind: str
    facts: dict[str, Any]
    columns: str = ""
    context: Dataset | None = None
    rows: Tensor | None = None
    holes: bool = False

    def located(self, text: str) -> str:
        """Return an error about training rows with columns and lines of the file."""
        if self.rows is None:
            return text
        return in_rows(self.dataset.name, run.columns(self.facts), text, self.rows)

    def split(self, name: str, part: Any = slice(None)) -> Any:
        """Return examples of a split as tasks and evaluators take them: alone, or with their covariates."""
        x = getattr(self.dataset, name)[part]
        return x if self.context is None else (x, getattr(self.context, name).x[part])

    def batch(self, name: str, part: Any) -> tuple[Tensor, ...]:
        """Return examples of a split as tensors, followed by their covariates, or lengths and inputs, if any."""
        split = getattr(self.dataset, name)
        x = split.batch(part)
        if self.kind == "sequences":
            return (x, *(column[part] for column in (split.lengths, split.inputs) if column is not None))
        return (x,) if self.context is None else (x, getattr(self.context, name).x[part])

    def __str__(self) -> str:
        return repr(self.dataset).replace(f"; {self.dataset.kind}", f"; {self.kind}")


def is_file(name: str) -> bool:
    """Return whether ``name`` is that of a data file or folder, not of a data set."""
    return name not in data.names() and is_source(name)


def load(config: Mapping[str, Any]) -> Source:
    """Load the data of a configuration.

    The rows of a file are shuffled in the same way in every run and split 80:10:10. The types and units of columns
    come from all rows, or from the configuration if it has columns.

    Args:
        config: ``data``, the name of a data set or file, and where they apply ``binarize``; for a table ``label``, the
            column with the labels, ``types`` of columns that are not inferred, and ``leave_out``, columns that are not
            used; ``covariates``, the names of columns, or ``["y"]`` for the labels of other data; and ``columns``,
            ``classes`` and ``context`` of an earlier run

    Raises:
        ValueError: the file or its values cannot be used.
    """
    name = config["data"]
    if is_file(name):
        if config.get("binarize"):
            raise ValueError(f"binarize: expected none for a file, got {config['binarize']}. Binarize the file itself")
        return from_file(name, config)
    found = data.load(name, binarize=config.get("binarize"))
    classes = {} if found.train.y is None else {"classes": sorted(set(found.train.y.tolist()))}
    facts, splits = {"shape": list(found.shape), **classes}, [found.train, found.valid, found.test]
    if not config.get("covariates"):
        return Source(found, found.kind, facts)
    encoded = [of_labels(name, split.y, classes.get("classes", ()), config) for split in splits]
    facts["context"] = run.describe(encoded[0][1])
    return Source(found, found.kind, facts, context=Dataset(name, *(Split(context) for context, _ in encoded)))


def of_labels(
    name: str, y: Tensor | None, classes: Sequence[Any], config: Mapping[str, Any]
) -> tuple[Tensor, tuple[Column, ...]]:
    """Return the labels of an array or data set as covariates."""
    names = list(config["covariates"])
    if names != [LABELS] or y is None:
        known = "none" if y is None else f"{LABELS}, the labels, as the only covariate"
        raise ValueError(f"covariates: expected {known} for {name}, got {', '.join(names)}")
    values = np.array([None if k < 0 else classes[k] for k in y.tolist()], object)
    return encode_covariates(name, {LABELS: values}, [Categorical(LABELS, tuple(classes))])


def from_file(path: str, config: Mapping[str, Any]) -> Source:
    """Read a file into three splits."""
    found = read_file(path, config)
    if found.kind == "sequence":
        return of_sequences(path, found)
    rows, facts = replace(found, context=None)[:], {"shape": list(found.shape)}
    context, covariates = found.context, found.covariates
    if isinstance(rows.x, Tensor) and rows.x.is_floating_point():
        rows = replace(rows, x=rows.x.float())
        if not config.get("keep_empty"):
            check_rows(path, rows.x)
    elif rows.transform is None:  # rows that are read by batch
        rows = replace(rows, transform=Levels())
    if found.kind != "table":
        check_columns(path, rows)
    else:
        facts["columns"] = run.describe(found.columns)
    if found.y is not None:
        facts["classes"] = list(found.classes)
    if config.get("covariates") and context is None:
        context, covariates = of_labels(path, found.y, found.classes, config)
    if covariates:
        facts["context"] = run.describe(covariates)
    kind, text = found.values, str(found)
    if kind == "real" and len(found.shape) == 1:
        units, table = real_columns(rows)
        kind, facts["units"], text = "real columns", run.describe(units), f"{text}\n{table}"
    numbers = torch.arange(len(rows)) if found.rows is None else found.rows
    more = {"rows": split_rows(path, Split(numbers)).train.x}
    more |= {} if context is None else {"context": split_rows(path, Split(context))}
    return Source(split_rows(path, rows), kind, facts, text, **more)


def of_sequences(path: str, found: Examples) -> Source:
    """Return sequences in three splits."""
    inputs = None if found.inputs is None else found.inputs.float()
    rows = replace(found, x=found.x.float(), inputs=inputs)
    facts = {"shape": [found.x.shape[2]], "steps": found.x.shape[1], "units": run.describe(found.columns)}
    facts |= {} if inputs is None else {"inputs": inputs.shape[2]}
    order = split_rows(path, Split(torch.arange(len(rows)))).train.x
    holes = int(torch.isnan(rows.x).sum()) > rows.x[0, 0].numel() * int((found.x.shape[1] - found.lengths).sum())
    return Source(split_rows(path, rows), "sequences", facts, str(found), rows=order, holes=holes)


def read_file(path: str, config: Mapping[str, Any]) -> Examples:
    """Return a file as the examples of a run; errors name the options of the command."""
    columns = run.columns(config) or None
    options = {name: config.get(name) for name in OPTIONS}
    options |= {"columns": columns, "types": None if columns else config.get("types")}
    covariates = run.columns(config, "context") or tuple(config.get("covariates") or ())
    if [getattr(c, "name", c) for c in covariates] != [LABELS]:
        options["covariates"] = covariates
    try:
        return data.read(path, **options, leave_out=config.get("leave_out") or (), classes=config.get("classes"))
    except ValueError as error:
        text = in_file(path, str(error))
        hint = " (--leave-out NAME, --columns NAME=TYPE)" if columns is None and f"{path}: column " in text else ""
        raise ValueError(f"{text}{hint}") from error


def check_columns(path: str, rows: Split) -> None:
    """Raise if an entry of an array is missing in all rows."""
    empty = torch.stack([torch.isnan(chunk).all(0) for chunk in rows.chunks()]).all(0)
    if empty.any():
        index = ", ".join(str(i) for i in empty.nonzero()[0].tolist())
        raise ValueError(f"{path}: expected a value of x[:, {index}] in some row, all are missing. Leave it out")


def to_fit(source: Source, config: Mapping[str, Any]) -> Any:
    """Return the training data as ``fit`` takes them.

    They are the training split, with its covariates if there are some; for a program that takes labels with a one-hot
    row per example, NaN where the label is missing or was hidden because of ``num_labels``.
    """
    train = source.dataset.train
    if not run.takes_labels(config):
        return source.split("train")
    known = torch.nonzero(train.y >= 0).squeeze(1)
    y = torch.full((len(train), len(config["classes"])), torch.nan)
    if config.get("num_labels"):
        try:
            found = tasks.hide_labels(train.y[known], config["num_labels"], seed=config["seed"])
        except ValueError as error:
            raise ValueError(re.sub("^(num_labelled|y): ", "num_labels: ", str(error))) from error
    else:
        found = torch.nn.functional.one_hot(train.y[known], y.shape[1]).to(y)
    y[known, : found.shape[1]] = found  # the training split may lack the last class
    return (train, y) if source.context is None else (train, source.context.train.x, y)
