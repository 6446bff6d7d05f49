"""Tables with a fifth of the labels: the default M2 of the command, logistic regression and self-training.

Run `PYRO_VAE_DATA=... python tests/benchmarks/few_labels_tables.py`. Each seed splits at most 1,000 rows of a table:
20% are test rows, and a fifth of the labels of the others, stratified by class, are known. Reported is the accuracy on
the test rows. No setting differs between tables.

* `command`: `pyro-vae train --program SemiSupervised --label class`, with all columns real numbers
  and its other defaults, then `tasks.classify`.
* `logistic regression`: that of scikit-learn with its defaults, on the standardized rows with a label.
* `self-training`: `SelfTrainingClassifier` over the same logistic regression, with the unlabelled rows.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from reporting import Results, cell

import pyro_vae as pv
from pyro_vae.cli import main as command

ROWS, KNOWN = 1000, 0.2
#: Tables of scikit-learn, of ADBench and of UCI.
TABLES = ("iris", "wine", "breast_cancer", "red wine", "abalone", "vertebral", "glass", "WDBC", "cardio")
Rows = tuple[np.ndarray, np.ndarray]


def data(name: str, root: Path) -> Rows:
    """Return the rows of a table, and their class numbers."""
    from sklearn import datasets

    if name in ("iris", "wine", "breast_cancer"):
        return getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "red wine":  # the quality is above 5 or not
        rows = np.loadtxt(root / "uci_wine_quality" / "winequality-red.csv", delimiter=";", skiprows=1)
        return rows[:, :-1], (rows[:, -1] > 5).astype(int)
    if name == "abalone":  # the sex
        text = np.loadtxt(root / "uci_abalone" / "abalone.data", delimiter=",", dtype=str)
        return text[:, 1:].astype(float), np.unique(text[:, 0], return_inverse=True)[1]
    with np.load(next((root / "adbench").glob(f"*_{name}.npz"))) as content:
        return content["X"].astype(float), content["y"].ravel().astype(int)


def split(name: str, seed: int, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training rows, their labels with -1 where hidden, test rows and their labels."""
    from sklearn.model_selection import train_test_split

    x, y = data(name, root)
    rows = np.random.default_rng(seed).permutation(len(x))[:ROWS]
    x, test_x, y, test_y = train_test_split(x[rows], y[rows], test_size=0.2, stratify=y[rows], random_state=seed)
    known, _ = train_test_split(np.arange(len(y)), train_size=KNOWN, stratify=y, random_state=seed)
    hidden = np.full(len(y), -1)
    hidden[known] = y[known]
    return x, hidden, test_x, test_y


def from_command(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Return the classes of the command, which holds out a tenth of the rows for its choice of the epoch."""
    names = [f"c{j}" for j in range(x.shape[1])]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        table, run = str(Path(folder) / "table.csv"), str(Path(folder) / "run")
        rows = [",".join([*map(str, row), f"class{k}" if k >= 0 else ""]) for row, k in zip(x, y, strict=True)]
        Path(table).write_text("\n".join([",".join([*names, "class"]), *rows]))
        options = ["--program", "SemiSupervised", "--label", "class", "--seed", str(seed), "--quiet"]
        options += ["--columns", ",".join(f"{name}=Real" for name in names)]  # test rows may have other signs
        if command(["train", "--data", table, "--run-dir", run, *options]):
            raise RuntimeError("train failed")
        program = pv.load(run)
    columns = dict(zip(names, test.T, strict=True))
    rows = pv.data.Table(columns, program.likelihood.columns).x
    labels = np.unique(y[y >= 0])
    return labels[pv.tasks.classify(program, rows, seed=seed, progress=False).predicted.numpy()]


def logistic(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Return the classes of logistic regression on the rows with a label."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[y >= 0], y[y >= 0]).predict(test)


def self_training(x: np.ndarray, y: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Return the classes of self-training."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.semi_supervised import SelfTrainingClassifier

    method = SelfTrainingClassifier(LogisticRegression(max_iter=1000))
    return make_pipeline(StandardScaler(), method).fit(x, y).predict(test)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "command": from_command,
    "logistic regression": logistic,
    "self-training": self_training,
}


def markdown(rows: list[dict], methods: list[str]) -> str:
    """Return a Markdown table of accuracies: mean and standard error over the seeds."""
    lines = [f"| table | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
    means = []
    for name in TABLES:
        own = [[row["accuracy"] for row in rows if (row["table"], row["method"]) == (name, m)] for m in methods]
        if all(own):
            lines.append(f"| {name} | {' | '.join(cell(values, 3) for values in own)} |")
            means.append([np.mean(values) for values in own])
    lines.append(f"| mean | {' | '.join(f'{value:.3f}' for value in np.mean(means, 0))} |")
    seconds = [np.mean([row["seconds"] for row in rows if row["method"] == m]) for m in methods]
    return "\n".join([*lines, f"| CPU s per table | {' | '.join(f'{value:.1f}' for value in seconds)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "few_labels_tables.jsonl")
    options = parser.parse_args()
    results = Results(options.results)
    root = Path(os.environ["PYRO_VAE_DATA"])
    for seed in range(options.seeds):
        for method, name in itertools.product(options.methods, options.tables):
            key = {"table": name, "method": method, "seed": seed}
            if results.has(**key):
                continue
            x, y, test_x, test_y = split(name, seed, root)
            start = time.process_time()
            accuracy = float((METHODS[method](x, y, test_x, seed) == test_y).mean())
            results.add({**key, "accuracy": round(accuracy, 4), "seconds": round(time.process_time() - start, 2)})
    print(f"accuracy, mean ± standard error over the seeds, torch {torch.__version__}\n")
    print(markdown(results.rows, list(options.methods)))


if __name__ == "__main__":
    main()
