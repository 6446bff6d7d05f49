"""Small files and training runs for the tests of the command line."""

import csv
import functools
import importlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.cli import main

#: The module of the command `train`.
command = importlib.import_module("pyro_vae.cli.train")
FOLDER = tempfile.TemporaryDirectory(prefix="pyro_vae_runs_")
TINY = [
    *("--data=digits", "--epochs=1", "--num-particles=3", "--quiet", "--latent=2", "--batch-size=20"),
    *("--posterior.net.hidden=[8]", "--likelihood.net.hidden=[8]"),
]
NAMES = ["age", "colour", "visits", "grade", "group"]


def table_rows(n=60, seed=0):
    """Return rows of text: numbers, categories, counts, ordinal values, and a class that is missing in some rows."""
    rng = np.random.default_rng(seed)
    colours = ["red", "green", "blue", *rng.choice(["red", "green", "blue"], n - 3)]
    return [
        [f"{age:.1f}", str(colour), str(visits), str(grade), "" if i % 3 == 0 else "AB"[i % 2]]
        for i, (age, colour, visits, grade) in enumerate(
            zip(rng.uniform(20, 60, n), colours, rng.poisson(30, n), 1 + np.arange(n) % 4, strict=True)
        )
    ]


def write_csv(path, names, rows, delimiter=","):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(names)
        writer.writerows(rows)
    return path


def read_csv(path):
    with path.open(newline="") as file:
        names, *rows = csv.reader(file)
    return names, rows


def with_missing_cells(rows, every=7):
    """Return rows with every seventh cell empty, but for the class."""
    return [["" if (5 * i + j) % every == 0 and j < 4 else c for j, c in enumerate(row)] for i, row in enumerate(rows)]


def images(n=40):
    return torch.rand(n, 2, 3, generator=torch.Generator().manual_seed(0)).numpy()


def train(folder, *options):
    """Run the command `train` without its figures, which take longer than the training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "figures", lambda *args: {})
        patch.setattr(command, "save", lambda *args: None)
        patch.setattr(pv.training.History, "plot", lambda self: None)
        assert main(["train", *TINY, f"--run-dir={folder}", *options]) == 0
    return folder


@functools.cache
def small_run(name):
    """Return the folder of a small run, trained once per process.

    `table` is a table with missing cells, `whole` one without, `array` has missing entries, `binary` binary values,
    and `classes` a class for some images. The data are in files of these names in the same folder.
    """
    folder = Path(FOLDER.name)
    if name in ("table", "whole"):
        rows = with_missing_cells(table_rows()) if name == "table" else table_rows()
        data = write_csv(folder / f"{name}.csv", NAMES, rows, delimiter=";")
        options = ["--label=group"]
    elif name in ("array", "binary"):
        x, data = images(), folder / f"{name}.npy"
        x[np.arange(40) % 3 == 0, 1, 2] = np.nan
        np.save(data, x if name == "array" else images().round())
        options = []
    else:
        y, data = np.where(np.arange(40) % 4 == 3, -1, np.arange(40) % 4 + 5), folder / "classes.npz"
        np.savez(data, x=images(), y=y)
        options = ["--program", "SemiSupervised", "--num-labels=6"]
    missing = ["--missing"] if name in ("table", "array") else []
    return train(folder / name, f"--data={data}", *missing, *options)
