"""The training data of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_vae import data, tasks
from pyro_vae.config import run
from pyro_vae.data import Dataset, Split, Table, files
from pyro_vae.data.rows import array_of, check_rows, encode_labels, kind_of, split_rows, table_of, to_tensor

__all__ = ["Source", "complete", "is_file", "load", "read_table", "to_fit"]


@dataclass(frozen=True)
class Source:
    """The training data of a run.

    Attributes:
        dataset: three splits; labels are class numbers, -1 where a label is missing
        kind: ``"binary"``, ``"grey"``, ``"real"`` or ``"mixed"`` (a table), which sets the default likelihood
        facts: entries for the configuration: ``shape``, ``columns`` of a table, and ``classes``, the labels
        columns: a description of the columns of a table, one line per column
    """

    dataset: Dataset
    kind: str
    facts: dict[str, Any]
    columns: str = ""

    def __str__(self) -> str:
        return repr(self.dataset).replace(f"; {self.dataset.kind}", f"; {self.kind}")


def is_file(name: str) -> bool:
    """Return whether ``name`` has the ending of a data file."""
    return Path(name).suffix.lower() in files.ENDINGS


def load(config: Mapping[str, Any]) -> Source:
    """Load the data of a configuration.

    The rows of a file are shuffled in the same way in every run and split 80:10:10. The types and units of columns
    come from all rows, or from the configuration if it has columns.

    Args:
        config: ``data``, the name of a data set or file, and where they apply ``binarize``; for a table ``label``, the
            column with the labels, ``types`` of columns that are not inferred, and ``leave_out``, columns that are not
            used; and ``columns`` and ``classes`` of an earlier run

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
    return Source(found, found.kind, {"shape": list(found.shape), **classes})


def from_file(path: str, config: Mapping[str, Any]) -> Source:
    """Read a file into three splits."""
    content, label, columns = files.read(path), config.get("label"), ""
    array = array_of(content)
    if array is not None:
        x, labels = to_tensor(path, array), content.get("y") if isinstance(content, dict) else None
        empty = torch.isnan(x).all(0)
        if empty.any():
            index = ", ".join(str(i) for i in empty.nonzero()[0].tolist())
            raise ValueError(f"{path}: expected a value of x[:, {index}] in some row, all are missing. Leave it out")
        kind, facts = kind_of(x), {"shape": list(x.shape[1:])}
        if config.get("types") or config.get("leave_out"):
            raise ValueError(f"columns: expected none for {path}, which is an array, not a table. Leave them out")
    else:
        cells = table_of(path, content)
        if label is not None and label not in cells:
            raise ValueError(f"label: expected a column of {path} ({', '.join(cells)}), got {label}")
        labels = None if label is None else files.typed(cells.pop(label))
        table = read_table(path, cells, config)
        x, kind = table.x, "mixed"
        facts = {"shape": [len(table.columns)], "columns": run.describe(table.columns)}
        columns = str(table)
    check_rows(path, x)
    y = None
    if labels is not None:
        y, facts["classes"] = encode_labels(path, labels, config.get("classes"))
    return Source(split_rows(path, Split(x, y)), kind, facts, columns)


def read_table(path: str, cells: dict[str, np.ndarray], config: Mapping[str, Any]) -> Table:
    """Return cells as a table with the columns of a run, or with inferred ones; errors name the file."""
    columns = run.columns(config) or None
    try:
        return Table(
            cells, columns, types=None if columns else config.get("types"), leave_out=config.get("leave_out") or ()
        )
    except ValueError as error:
        # the options of the command have other names
        text = re.sub("^types: ", "columns: ", re.sub("^leave_out: ", "leave-out: ", str(error)))
        text = re.sub(r"\brow (\d+)", lambda found: files.place(path, int(found[1])), text)
        hint = " (--leave-out NAME, --columns NAME=TYPE)" if columns is None and text.startswith("column ") else ""
        raise ValueError(f"{path}: {text}{hint}") from error


def complete(config: Mapping[str, Any], source: Source, *, alpha: bool = False) -> dict[str, Any]:
    """Return the configuration of a new run with the facts of its data.

    Unless the weight ``alpha`` of the classification was chosen, it is 0.1 times the number of examples over that of
    labels, as in Kingma et al. (2014).

    Raises:
        ValueError: the program needs labels that the data do not have.
    """
    facts, spec = source.facts, config["program"]
    if not run.takes_labels(config):
        return {**config, **{key: value for key, value in facts.items() if key != "classes"}}
    if "classes" not in facts:
        raise ValueError(
            f"program: {spec['name']} needs labels. Name the column of a table by --label, or save them in an .npz as "
            "the array y"
        )
    config = {**config, **facts}
    if not alpha:
        _, y = to_fit(source.dataset, config)
        spec = {**spec, "options": {**spec["options"], "alpha": 0.1 * len(y) / int((~y.isnan()).all(1).sum())}}
    return {**config, "program": spec}


def to_fit(dataset: Dataset, config: Mapping[str, Any]) -> Any:
    """Return the training data as ``fit`` takes them.

    They are the training split; for a program that takes labels with a one-hot row per example, NaN where the label is
    missing or was hidden because of ``num_labels``.
    """
    train = dataset.train
    if not run.takes_labels(config):
        return train
    known = torch.nonzero(train.y >= 0).squeeze(1)
    y = torch.full((len(train), len(config["classes"])), torch.nan)
    if config.get("num_labels"):
        found = tasks.hide_labels(train.y[known], config["num_labels"], seed=config["seed"])
    else:
        found = torch.nn.functional.one_hot(train.y[known], y.shape[1]).to(y)
    y[known, : found.shape[1]] = found  # the training split may lack the last class
    return train, y
