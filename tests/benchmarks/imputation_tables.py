"""Imputation of tables with the defaults of the library, and of two methods of scikit-learn.

Run `PYRO_VAE_DATA=... python tests/benchmarks/imputation_tables.py`. Each seed takes at most 500 rows of a table, and
hides every entry with probability 0.3 (in the breast cancer table also 0.5); a row that would lose all entries keeps
one. All methods see the same entries, and learn from the rows that they impute. No setting differs between tables.

* Error: mean squared error of the hidden numbers, in units of the standard deviation of the observed entries of their
  column, over that of the means of the observed entries. The imputed value is the conditional mean, which has the
  smallest squared error.
* Worst column: the largest such ratio of a column, after the mean over the seeds.
* Covered: share of the hidden numbers in the central intervals of 90% and 50% from 200 samples.
* `VAEImputer`: `pyro_vae.sklearn.VAEImputer`; `command`: `pyro-vae train --missing`, then `tasks.impute`, which is
  what `pyro-vae impute` writes; `IterativeImputer` and `KNNImputer` of scikit-learn. All with their defaults.

The sex of an abalone is a label for the command, a number for the others, and not scored.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imputation import hide
from reporting import Results, cell

import pyro_vae as pv
from pyro_vae.cli import main as command
from pyro_vae.sklearn import VAEImputer

ROWS, SAMPLES = 500, 200
LEVELS = (0.9, 0.5)
#: What is reported of a method with intervals besides its error.
EXTRA = ("worst column", *(f"covered {level:.0%}" for level in LEVELS), "seconds")
#: Rows with imputed means, and samples of them.
Imputed = tuple[np.ndarray, np.ndarray | None]


def from_sklearn(name: str, root: Path) -> np.ndarray:
    """Return a table of scikit-learn."""
    from sklearn import datasets

    options = {"scaled": False} if name == "diabetes" else {}
    return getattr(datasets, f"load_{name}")(**options).data


def from_adbench(name: str, root: Path) -> np.ndarray:
    """Return a table of ADBench without its labels."""
    with np.load(next((root / "adbench").glob(f"*_{name}.npz"))) as content:
        return content["X"]


def wine(colour: str, root: Path) -> np.ndarray:
    """Return the red or white wines, with their quality."""
    return np.loadtxt(root / "uci_wine_quality" / f"winequality-{colour}.csv", delimiter=";", skiprows=1)


def abalone(root: Path) -> np.ndarray:
    """Return the abalones; the sex is a number."""
    rows = np.loadtxt(root / "uci_abalone" / "abalone.data", delimiter=",", dtype=str)
    return np.column_stack([["MFI".index(sex) for sex in rows[:, 0]], rows[:, 1:].astype(float)])


TABLES: dict[str, Callable[[Path], np.ndarray]] = {
    "red wine": functools.partial(wine, "red"),
    "white wine": functools.partial(wine, "white"),
    "abalone": abalone,
    **{
        name.replace("_", " "): functools.partial(from_sklearn, name) for name in ("breast_cancer", "diabetes", "iris")
    },
    "wine cultivars": functools.partial(from_sklearn, "wine"),
    **{name: functools.partial(from_adbench, name) for name in ("glass", "vertebral", "vowels", "cardio")},
}
CASES = [*((name, 0.3) for name in TABLES), ("breast cancer", 0.5)]


def data(name: str, seed: int, share: float, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of a table, complete and with NaN for hidden entries; constant columns are left out."""
    whole = TABLES[name](root).astype(float)
    whole = whole[np.random.default_rng(seed).permutation(len(whole))[:ROWS]]
    whole = whole[:, [np.unique(column).size > 1 for column in whole.T]]
    return whole, hide(whole, seed, share)


def columns_of(x: np.ndarray, labels: list[int]) -> dict[str, np.ndarray]:
    """Return the cells of a table by column, None where one is hidden; some columns have labels instead of numbers."""
    cells = np.where(np.isnan(x), None, x.astype(str))
    for j in labels:
        cells[:, j] = [value and f"label {value}" for value in cells[:, j]]
    return {f"column {j}": column for j, column in enumerate(cells.T)}


def from_command(x: np.ndarray, labels: list[int], seed: int) -> Imputed:
    """Impute by the command; labels are NaN in the result."""
    cells = columns_of(x, labels)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path, run = (str(Path(folder) / name) for name in ("table.csv", "run"))
        rows = zip(*cells.values(), strict=True)
        Path(path).write_text("\n".join([",".join(cells), *(",".join(value or "" for value in row) for row in rows)]))
        if command(["train", "--data", path, "--run-dir", run, "--missing", "--quiet", "--seed", str(seed)]):
            raise RuntimeError("train failed")
        program = pv.load(run)
    columns = program.likelihood.columns
    found = pv.tasks.impute(program, pv.data.Table(cells, columns).x, num_samples=SAMPLES, seed=seed, progress=False)

    def numbers(values: torch.Tensor) -> np.ndarray:
        """Return values of the table as numbers."""
        decoded = [
            np.full(len(values), np.nan) if j in labels else c.decode(values[:, j].numpy()).astype(float)
            for j, c in enumerate(columns)
        ]
        return np.stack(decoded, 1)

    return numbers(found.x), np.stack([numbers(sample) for sample in found.samples])


def imputer(x: np.ndarray, labels: list[int], seed: int) -> Imputed:
    """Impute by VAEImputer, which takes labels as numbers."""
    method = VAEImputer(random_state=seed).fit(x)
    return method.transform(x), method.sample(x, SAMPLES)


def iterative(x: np.ndarray, labels: list[int], seed: int) -> Imputed:
    """Impute by the IterativeImputer of scikit-learn."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rounds stop before they converge
        return IterativeImputer(random_state=seed).fit_transform(x), None


def neighbours(x: np.ndarray, labels: list[int], seed: int) -> Imputed:
    """Impute by the mean of five nearest neighbours."""
    from sklearn.impute import KNNImputer

    return KNNImputer().fit_transform(x), None


METHODS: dict[str, Callable[[np.ndarray, list[int], int], Imputed]] = {
    "VAEImputer": imputer,
    "command": from_command,
    "IterativeImputer": iterative,
    "KNNImputer": neighbours,
}


def measure(method: str, name: str, seed: int, share: float, root: Path) -> dict[str, Any]:
    """Return the error of a method, that of each column, and the coverage of its intervals."""
    whole, x = data(name, seed, share, root)
    labels = [0] if name == "abalone" else []
    start = time.process_time()
    filled, samples = METHODS[method](x, labels, seed)
    seconds = round(time.process_time() - start, 1)
    scored = np.isnan(x)
    scored[:, labels] = False
    scale = np.nanstd(x, 0)
    mean, ours = (
        (np.where(scored, (values - whole) / scale, 0.0) ** 2).sum(0) for values in (np.nanmean(x, 0), filled)
    )
    found: dict[str, Any] = {"error": round(float(ours.sum() / mean.sum()), 4), "seconds": seconds}
    found["columns"] = [round(float(a / b), 3) for a, b in zip(ours, mean, strict=True) if b]
    if samples is not None:
        near = 1e-6 * np.abs(whole)  # float32
        for level in LEVELS:
            low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
            inside = (low - near <= whole) & (whole <= high + near)
            found[f"covered {level:.0%}"] = round(float(inside[scored].mean()), 4)
    return found


def markdown(rows: list[dict[str, Any]], methods: list[str]) -> str:
    """Return the table in Markdown: mean and standard error over the seeds that all methods have."""
    ours = [method for method in methods if method in ("VAEImputer", "command")]
    heads = ["table", *methods, *(f"{method}: {what}" for method in ours for what in EXTRA)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    means: list[list[float]] = []
    for name, share in CASES:
        found = {
            m: {r["seed"]: r for r in rows if (r["table"], r["share"], r["method"]) == (name, share, m)}
            for m in methods
        }
        seeds = set.intersection(*map(set, found.values()))
        if not seeds:
            continue
        own = {m: [found[m][seed] for seed in seeds] for m in methods}
        values = [[row["error"] for row in own[method]] for method in methods]
        for method in ours:
            worst = [float(np.mean([row["columns"] for row in own[method]], 0).max())]
            values += [worst, *([row[what] for row in own[method]] for what in EXTRA[1:])]
        lines.append(f"| {name}, {share:.0%} | {' | '.join(cell(v, 3) for v in values)} |")
        means.append([float(np.mean(v)) for v in values])
    return "\n".join([*lines, f"| mean | {' | '.join(f'{value:.3f}' for value in np.mean(means, 0))} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=tuple(TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "imputation_tables.jsonl")
    options = parser.parse_args()
    results = Results(options.results)
    root = Path(os.environ["PYRO_VAE_DATA"])
    for seed in range(options.seeds):
        for method, (name, share) in itertools.product(options.methods, CASES):
            key = {"table": name, "share": share, "method": method, "seed": seed}
            if name in options.tables and not results.has(**key):
                results.add({**key, **measure(method, name, seed, share, root)})
    print(f"mean ± standard error over the seeds, torch {torch.__version__}\n")
    print(markdown(results.rows, list(options.methods)))


if __name__ == "__main__":
    main()
