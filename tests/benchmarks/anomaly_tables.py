"""Unsupervised anomaly detection on public tables: the defaults of the library, the former ones and two baselines.

Run `PYRO_VAE_DATA=... python tests/benchmarks/anomaly_tables.py`. Ten tables of ADBench (folder `adbench`), and six
others, of which the rare class is the anomalies: breast cancer (malignant), red and white wine (quality of 4 or less),
abalone (4 rings or fewer), digits (0) and diabetes (the tenth with the largest progression). Of a rare class that
makes more than a tenth of the rows, a random part is used, so that it makes a tenth. All rows of a table or a random
1,500 of them, standardized; constant columns are removed. Each method learns from all rows without labels and scores
the same rows; the labels are used for the area under the ROC curve only. No setting differs between tables.

* `VAEDensity`: `pyro_vae.sklearn.VAEDensity` with its defaults; minus the log-likelihood of a row is its score.
* `command`: `pyro-vae train --data table.csv --purpose anomalies`, then `pyro-vae score`.
* `command, density`: the same with `--purpose density`, the default, on request only.
* `former`: `VAEDensity` with its former defaults: 2 latents, hidden layers of 500 and 500, a normal likelihood with
  one learned scale, 100 epochs.
* `PCA`: the Mahalanobis distance, over all principal components.
* `IsolationForest` of scikit-learn.

Budget: about 8 minutes on one core for three seeds; the former defaults, on request only, take as long again.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from anomaly import labelled
from reporting import Results, cell

import pyro_vae as pv
from pyro_vae.cli import main as command
from pyro_vae.sklearn import VAEDensity

ROWS = 1500
OTHERS = ("breast cancer", "red wine", "white wine", "abalone", "digits", "diabetes")
Method = Callable[[np.ndarray, int], np.ndarray]


def table(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return standardized rows, and which of them are anomalies."""
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    if name in OTHERS:
        x, y = labelled(name)
        normal, rare = (rng.permutation(np.flatnonzero(rows)) for rows in (~y, y))
        rows = rng.permutation(np.concatenate([normal, rare[: len(normal) // 9]]))[:ROWS]
        x = x[rows]
        return StandardScaler().fit_transform(x[:, np.ptp(x, 0) > 0]), y[rows]
    with np.load(adbench()[name]) as content:
        x, y = content["X"].astype(float), content["y"].ravel().astype(int)
    rows = rng.permutation(len(x))[:ROWS]
    return StandardScaler().fit_transform(x[rows]), y[rows]


def adbench() -> dict[str, Path]:
    """Return the files of ADBench by the name of the table."""
    folder = Path(os.environ["PYRO_VAE_DATA"]) / "adbench"
    return {path.stem.partition("_")[2]: path for path in sorted(folder.glob("*.npz"))}


def density(x: np.ndarray, seed: int) -> np.ndarray:
    """Return the scores of VAEDensity."""
    return -VAEDensity(random_state=seed).fit(x).score_samples(x)


def former(x: np.ndarray, seed: int) -> np.ndarray:
    """Return the scores of VAEDensity with its former defaults."""
    normal = functools.partial(pv.likelihoods.Normal, scale=pv.scales.Shared())
    parts = {"likelihood": normal, "posterior": pv.posteriors.MeanFieldNormal}
    vae = VAEDensity(2, **parts, epochs=100, estimator=pv.estimators.ELBO(), random_state=seed).fit(x)
    return -vae.score_samples(x)


def from_command(x: np.ndarray, seed: int, purpose: str = "anomalies") -> np.ndarray:
    """Return the scores of the command."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        data, run, scores = (str(Path(folder) / name) for name in ("table.csv", "run", "scores.npy"))
        np.savetxt(data, x, delimiter=",", header=",".join(f"c{i}" for i in range(x.shape[1])), comments="")
        options = ["--quiet", "--seed", str(seed)]
        if command(["train", "--data", data, "--run-dir", run, "--purpose", purpose, *options]):
            raise RuntimeError("train failed")
        if command(["score", run, data, "--output", scores, *options]):
            raise RuntimeError("score failed")
        return np.load(scores)


def pca(x: np.ndarray, seed: int) -> np.ndarray:
    """Return squared Mahalanobis distances."""
    _, sizes, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    kept = sizes > 1e-6 * sizes[0]
    return ((x @ axes[kept].T / sizes[kept]) ** 2).sum(1)


def forest(x: np.ndarray, seed: int) -> np.ndarray:
    """Return the scores of an isolation forest."""
    from sklearn.ensemble import IsolationForest

    return -IsolationForest(random_state=seed).fit(x).score_samples(x)


METHODS: dict[str, Method] = {
    "VAEDensity": density,
    "command": from_command,
    "command, density": functools.partial(from_command, purpose="density"),
    "former": former,
    "PCA": pca,
    "IsolationForest": forest,
}
#: Methods that are measured unless others are named.
DEFAULT = ("VAEDensity", "command", "PCA", "IsolationForest")


def markdown(rows: list[dict], names: list[str]) -> str:
    """Return a Markdown table of areas: mean and standard error over seeds."""
    tables = list(dict.fromkeys(row["table"] for row in rows))
    lines = [f"| table | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]

    def areas(name: str, method: str) -> list[float]:
        return [row["AUROC"] for row in rows if (row["table"], row["method"]) == (name, method)]

    for name in tables:
        lines.append(f"| {name} | {' | '.join(cell(areas(name, method), 3) for method in names)} |")
    means = [f"{np.mean([np.mean(areas(name, method)) for name in tables]):.3f}" for method in names]
    lines.append(f"| mean | {' | '.join(means)} |")
    seconds = {m: [row["seconds"] for row in rows if row["method"] == m] for m in names}
    return "\n".join([*lines, f"| CPU s per table | {' | '.join(f'{np.mean(seconds[m]):.1f}' for m in names)} |"])


def main() -> None:
    from sklearn.metrics import roc_auc_score

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=DEFAULT)
    parser.add_argument("--tables", nargs="+", help="all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "anomaly_tables.jsonl")
    options = parser.parse_args()
    results = Results(options.results)
    for method in options.methods:
        for name in options.tables or (*adbench(), *OTHERS):
            for seed in range(options.seeds):
                if results.has(table=name, method=method, seed=seed):
                    continue
                x, y = table(name, seed)
                start = time.process_time()
                scores = METHODS[method](x, seed)
                seconds = round(time.process_time() - start, 2)
                area = round(float(roc_auc_score(y, scores)), 4)
                results.add({"table": name, "method": method, "seed": seed, "AUROC": area, "seconds": seconds})
    print(f"area under the ROC curve, mean ± standard error over the seeds, torch {torch.__version__}\n")
    print(markdown(results.rows, list(options.methods)))


if __name__ == "__main__":
    main()
