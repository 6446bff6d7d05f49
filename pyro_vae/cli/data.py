"""Data that a command trains on: sets by name, and files cut in three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import data
from pyro_vae.cli.choices import UsageError
from pyro_vae.config import run
from pyro_vae.data import Dataset, Split, Table, files
from pyro_vae.data.tables.values import missing

__all__ = [
    "Source",
    "array_of",
    "completed",
    "is_file",
    "labelled",
    "load",
    "numbers",
    "refuse_empty_rows",
    "table_of",
]

#: Rows of a file, at least: a tenth is for validation, a tenth for tests.
LEAST = 10


@dataclass(frozen=True)
class Source:
    """What a program is trained on.

    Attributes:
        dataset: three splits; labels are codes, -1 where none is known
        kind: ``"binary"``, ``"grey"``, ``"real"`` or ``"mixed"`` (a table), by which the default likelihood goes
        facts: what the configuration keeps of it: ``shape``, ``columns`` of a table, and ``classes``, the labels
    """

    dataset: Dataset
    kind: str
    facts: dict[str, Any]

    @property
    def shaped(self) -> dict[str, Any]:
        """The facts that every program needs."""
        return {key: value for key, value in self.facts.items() if key != "classes"}

    def __str__(self) -> str:
        return repr(self.dataset).replace(f"; {self.dataset.kind}", f"; {self.kind}")


def is_file(name: str) -> bool:
    """Whether data are named as a file is."""
    return Path(name).suffix.lower() in files.ENDINGS


def load(config: Mapping[str, Any]) -> Source:
    """Load the data of a configuration.

    The rows of a file are shuffled in a fixed way and cut: a tenth for validation, a tenth for tests. Types and units
    of columns are those of all rows, or those of the configuration where it has some.

    Args:
        config: ``data``, the name of a data set or file, and where they apply ``binarize``, ``label``, the column of a
            table that holds the classes, and ``columns`` and ``classes`` of an earlier run

    Raises:
        ValueError: the file or its values cannot be used.
    """
    name = config["data"]
    if is_file(name):
        if config.get("binarize"):
            raise ValueError(f"binarize: the data of a file are taken as they are, got {config['binarize']}")
        return from_file(name, config)
    found = data.load(name, binarize=config.get("binarize"))
    classes = {} if found.train.y is None else {"classes": sorted(set(found.train.y.tolist()))}
    return Source(found, found.kind, {"shape": list(found.shape), **classes})


def from_file(path: str, config: Mapping[str, Any]) -> Source:
    """Read a file into three splits."""
    content, label = files.read(path), config.get("label")
    found = array_of(content)
    if found is not None:
        x, labels = numbers(path, found), content.get("y") if isinstance(content, dict) else None
        holes = torch.isnan(x).all(0)
        if holes.any():
            index = ", ".join(str(i) for i in holes.nonzero()[0].tolist())
            raise ValueError(f"{path}: x[:, {index}] is missing in all rows, so that nothing is known of it")
        kind, facts = kind_of(x), {"shape": list(x.shape[1:])}
    else:
        cells = table_of(path, content)
        if label is not None and label not in cells:
            raise ValueError(f"label: expected a column of {path}: {', '.join(cells)}; got {label}")
        labels = None if label is None else files.typed(cells.pop(label))
        try:
            table = Table({name: files.typed(values) for name, values in cells.items()}, run.columns(config) or None)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        x, kind = table.x, "mixed"
        facts = {"shape": [len(table.columns)], "columns": run.describe(table.columns)}
    refuse_empty_rows(path, x)
    y = None
    if labels is not None:
        y, facts["classes"] = coded(path, labels, config.get("classes"))
    return Source(cut(path, Split(x, y)), kind, facts)


def array_of(content: np.ndarray | Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the array whose rows are data, None for the columns of a table."""
    if isinstance(content, np.ndarray):
        return content
    alone = next(iter(content.values())) if len(content) == 1 else None
    found = content.get("x", alone)
    return found if found is not None and found.ndim > 1 else None


def table_of(path: str, content: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of a table, or say that these arrays are none."""
    shapes = {name: values.shape for name, values in content.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        raise ValueError(
            f"{path}: expected an array x of one datum a row, or arrays of one length as the columns of a table, got "
            f"{', '.join(f'{name} {shape}' for name, shape in shapes.items()) or 'no array'}"
        )
    return dict(content)


def numbers(path: str, array: np.ndarray) -> Tensor:
    """Return an array of data as float32."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected an array of numbers, got numpy dtype {array.dtype}")
    if array.ndim < 2 or not array.size:
        raise ValueError(f"{path}: expected an array with one datum a row, got shape {array.shape}")
    if array.dtype == np.uint8 and array.max() > 1:
        raise ValueError(
            f"{path}: the array holds bytes up to {array.max()}: divide grey levels by 255, or save counts as int64"
        )
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def kind_of(x: Tensor) -> str:
    """Return by its values what an array holds."""
    seen = x[~torch.isnan(x)]
    if ((seen == 0) | (seen == 1)).all():
        return "binary"
    return "grey" if seen.min() >= 0 and seen.max() <= 1 else "real"


def refuse_empty_rows(path: str, x: Tensor) -> None:
    """Refuse rows without a single value."""
    empty = torch.isnan(x).flatten(1).all(1)
    if empty.any():
        raise ValueError(
            f"{path}: row {int(empty.nonzero()[0])} (counted from 0) holds no value, {int(empty.sum()):,} of "
            f"{len(x):,} rows do not: leave them out"
        )


def coded(path: str, labels: np.ndarray, classes: list[Any] | None) -> tuple[Tensor, list[Any]]:
    """Return labels as codes, -1 where none is known, and the labels in the order of their codes."""
    if labels.ndim != 1:
        raise ValueError(f"{path}: expected labels of one number or word a row, got shape {labels.shape}")
    gone = missing(labels) | ((labels == -1) if labels.dtype.kind == "i" else False)
    known = labels[~gone].tolist()
    classes = sorted(set(known)) if classes is None else classes
    if len(classes) < 2 or not set(known) <= set(classes):
        raise ValueError(f"{path}: expected labels of two or more classes, got {sorted(set(known))[:5]}")
    codes = torch.full((len(labels),), -1)
    codes[torch.from_numpy(~gone)] = torch.tensor([classes.index(label) for label in known])
    return codes, classes


def cut(path: str, rows: Split) -> Dataset:
    """Return the three splits of all rows."""
    n = len(rows)
    if n < LEAST:
        raise ValueError(f"{path}: expected {LEAST} rows or more to train, validate and test on, got {n}")
    rows = rows[torch.from_numpy(np.random.default_rng(0).permutation(n))]
    tenth = max(1, n // 10)
    return Dataset(path, rows[: n - 2 * tenth], rows[n - 2 * tenth : n - tenth], rows[n - tenth :])


def completed(config: Mapping[str, Any], source: Source, argv: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of a new run, with what the data tell.

    Raises:
        ValueError: the program needs labels that the data do not have.
    """
    if not with_classes(config):
        if config.get("labels"):
            raise UsageError("labels: only a program with classes learns from labels: --program SemiSupervised")
        return {**config, **source.shaped}
    if "classes" not in source.facts:
        raise ValueError(
            f"program: {config['program']['name']} needs labels: name the column of a table by --label, or put them "
            "into an .npz as the array y"
        )
    facts, program = source.facts, config["program"]
    if not any(arg.startswith("--program.alpha") for arg in argv):
        train = labelled(source.dataset, {**config, **facts})[0].train
        weight = 0.1 * len(train) / int((train.y >= 0).sum())
        program = {**program, "options": {**program["options"], "alpha": weight}}
    return {**config, **facts, "program": program}


def with_classes(config: Mapping[str, Any]) -> bool:
    """Whether the program of a configuration has classes."""
    return "classifier" in run.required(run.shelves()["program"][config["program"]["name"]])


def labelled(dataset: Dataset, config: Mapping[str, Any]) -> tuple[Dataset, Any]:
    """Return the data with as many labels as the configuration says, and what ``fit`` takes of them.

    That is the training split, and for a program with classes a one-hot row a datum beside it, NaN without a label.
    """
    if not with_classes(config):
        return dataset, dataset.train
    classes, train = len(config["classes"]), dataset.train
    if config.get("labels"):
        train = few(train, config["labels"], classes, config["seed"])
    y = torch.nn.functional.one_hot(train.y.clamp(min=0), classes).float()
    y[train.y < 0] = torch.nan
    return replace(dataset, train=train), (train, y)


def few(split: Split, labels: int, classes: int, seed: int) -> Split:
    """Return a split of whose labels so many are left, of each class as many as of the others while there are some."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(split)))
    order = order[split.y[order] >= 0]
    if labels > len(order):
        raise ValueError(f"labels: expected at most {len(order):,}, as many as the training data have, got {labels:,}")
    # the first of each class, then the second of each, ...
    is_class = split.y[order].unsqueeze(1) == torch.arange(classes)
    turn = (is_class.cumsum(0) * is_class).sum(1)
    keep = order[turn.argsort(stable=True)[:labels]]
    y = torch.full_like(split.y, -1)
    y[keep] = split.y[keep]
    return replace(split, y=y)
