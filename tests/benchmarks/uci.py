"""Adult, Wine and Abalone of the UCI repository: training rows, test rows and column types.

Adult has its own test file, of which 1,000 rows are used; `education` is removed, as `education-num` repeats it. For
Wine (red and white) and Abalone a fifth of the rows is used for testing, at most 1,000. "?" means missing.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_vae.data.tables import Column, Ordinal, Positive, Real, infer

TEST_ROWS = 1000
ADULT = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain "
    "capital-loss hours-per-week native-country income"
).split()
ABALONE = "sex length diameter height whole-weight shucked-weight viscera-weight shell-weight rings".split()
Rows = dict[str, np.ndarray]


def read(path: Path, names: Sequence[str] = (), *, delimiter: str = ",") -> Rows:
    """Read a CSV file, with names in its first line if none are given; "?" means missing."""
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file, delimiter=delimiter, skipinitialspace=True) if len(row) > 1]
    names, rows = (names, rows) if names else (rows[0], rows[1:])
    return {name: numbers_or_labels(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def numbers_or_labels(values: Sequence[str]) -> np.ndarray:
    """Return floats if all values are numbers, otherwise labels with None for missing ones."""
    try:
        return np.array(values, float)
    except ValueError:
        # the labels in adult.test end with a full stop
        return np.array([None if v == "?" else v.rstrip(".") for v in values], object)


def adult(root: Path) -> tuple[Rows, Rows]:
    """Return training and test rows of Adult."""
    train, test = (read(root / "uci_adult" / f"adult.{part}", ADULT) for part in ("data", "test"))
    del train["education"], test["education"]
    return train, rows_of(test, permutation(test)[:TEST_ROWS])


def wine(root: Path) -> tuple[Rows, Rows]:
    """Return training and test rows of red and white wine."""
    parts = {
        colour: read(root / "uci_wine_quality" / f"winequality-{colour}.csv", delimiter=";")
        for colour in ("red", "white")
    }
    joined = {name: np.concatenate([part[name] for part in parts.values()]) for name in parts["red"]}
    joined["colour"] = np.concatenate([np.full(len(p["quality"]), c, object) for c, p in parts.items()])
    return split(joined)


def abalone(root: Path) -> tuple[Rows, Rows]:
    """Return training and test rows of Abalone."""
    return split(read(root / "uci_abalone" / "abalone.data", ABALONE))


def split(rows: Rows) -> tuple[Rows, Rows]:
    """Return four fifths of the rows for training, the rest for testing."""
    order = permutation(rows)
    cut = len(order) * 4 // 5
    return rows_of(rows, order[:cut]), rows_of(rows, order[cut:][:TEST_ROWS])


def permutation(rows: Rows) -> np.ndarray:
    """Return a random order of the rows, the same in every run."""
    return np.random.default_rng(0).permutation(len(next(iter(rows.values()))))


def rows_of(rows: Rows, index: np.ndarray) -> Rows:
    """Return some of the rows."""
    return {name: values[index] for name, values in rows.items()}


def columns_of(rows: Rows) -> tuple[Column, ...]:
    """Infer the columns from training rows, except those that inference gets wrong or that may lack a rare value."""
    known = {
        "fnlwgt": lambda v: Positive("fnlwgt", float(np.log(v).mean()), float(np.log(v).std())),
        "education-num": lambda v: Ordinal("education-num", tuple(range(1, 17))),
        "quality": lambda v: Ordinal("quality", tuple(range(3, 10))),
        "height": lambda v: Real("height", float(v.mean()), float(v.std())),
    }
    return tuple(known[name](v) if name in known else infer(name, v) for name, v in rows.items())


TABLES = {"Adult": adult, "Wine": wine, "Abalone": abalone}
