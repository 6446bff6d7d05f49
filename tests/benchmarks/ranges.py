"""Columns with and without a range: imputation error, values outside the range, and held-out log-likelihood.

Run `PYRO_VAE_DATA=... python tests/benchmarks/ranges.py`. Tables: ten of ADBench, the breast cancer table of UCI
(without its id; grades 1 to 10 as Integer) and four of scikit-learn. None of them was used to choose the settings of
the columns. At most 500 rows at random, a fifth held out. Of the other rows, 30% of the entries are hidden completely at random; a
row that would lose all entries keeps them. The types of the columns are inferred from the whole table, their units and
ranges from the observed entries. The "unranged" VAE has the same columns without the ends of the range (an Integer has those of its default).

Both VAEs: 8 latents, default networks, estimator, optimizer and batch size, the same number of steps. The error is the
mean over ranged columns (Real, Positive, Integer, Count) of the squared error of the hidden entries divided by that of
the mean of the observed entries, so that the mean scores 1. Cells outside are the share of means and samples of hidden
entries outside the range of their column in Real, Positive and Integer columns.
"""

from __future__ import annotations

import argparse
import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import Results, cell

import pyro_vae as pv
from pyro_vae.data.tables import Column, Count, Features, Integer, Positive, Real
from pyro_vae.data.tables.labels import Labels

LATENT, BATCH, HIDDEN, SAMPLES, PARTICLES, ROWS = 8, 128, 0.3, 10, 50, 500
SKLEARN = ("iris", "wine", "diabetes", "breast_cancer")
UCI = Path("uci_breast_cancer_wisconsin", "breast-cancer-wisconsin.data")


def tables(root: Path) -> dict[str, np.ndarray]:
    """Return all tables by name, as arrays (rows, columns) without constant columns."""
    from sklearn import datasets

    found = {path.stem: np.load(path)["X"] for path in sorted((root / "adbench").glob("*.npz"))}
    found["UCI breast cancer"] = np.genfromtxt(root / UCI, delimiter=",", missing_values="?")[:, 1:-1]
    scaled = {"diabetes": {"scaled": False}}
    found |= {f"sklearn {n}": getattr(datasets, f"load_{n}")(**scaled.get(n, {})).data for n in SKLEARN}
    return {name: x[:, [np.unique(c).size > 1 for c in x.T]] for name, x in found.items()}


def hide(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return x with NaN in some of its entries."""
    holes = rng.random(x.shape) < HIDDEN
    full = np.flatnonzero((holes | np.isnan(x)).all(1))
    holes[full] = False
    return np.where(holes, np.nan, x)


def unranged(column: Column) -> Column:
    """Return a column without the ends of its range."""
    if isinstance(column, Real | Positive):
        return replace(column, low=None, high=None)
    if isinstance(column, Integer):
        return Integer(column.name, column.shift, column.scale, cells=column.cells)
    return replace(column, high=None) if isinstance(column, Count) else column


def measure(whole: np.ndarray, types: dict[str, str], ranged: bool, seed: int, steps: int) -> dict[str, Any]:
    """Return the error of imputation, the share of cells outside the range, and the held-out log-likelihood."""
    rng = np.random.default_rng(seed)
    whole = whole[rng.permutation(len(whole))[:ROWS]]
    cut = len(whole) * 4 // 5
    # what a column can be is known; its units and range are those of the observed entries
    known = pv.data.tables.schema(whole, types)
    shown = hide(whole[:cut], rng)
    seen = pv.data.tables.schema(shown, {c.name: type(c) for c in known})
    own = [k if isinstance(k, Labels) else c for k, c in zip(known, seen, strict=True)]
    columns = own if ranged else [unranged(c) for c in own]
    x, truth, test = (pv.data.Table(rows, columns).x for rows in (shown, whole[:cut], whole[cut:]))
    torch.manual_seed(seed)
    shape, features = (len(columns),), functools.partial(Features, columns, missing=True)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.Heterogeneous(LATENT, shape, columns=columns),
        posterior=pv.posteriors.MeanFieldNormal(shape, LATENT, net=features),
        missing=True,
    )
    pv.fit(vae, x, epochs=max(1, steps // -(-len(x) // BATCH)), seed=seed, progress=False)
    found = pv.tasks.impute(vae, x, num_particles=PARTICLES, num_samples=SAMPLES, seed=seed, progress=False)
    errors, outside, cells = [], 0, 0
    for j, column in enumerate(own):
        hidden = torch.isnan(x[:, j]) & ~torch.isnan(truth[:, j])
        if isinstance(column, Real | Positive | Integer | Count) and hidden.any():
            target, mean = truth[hidden, j].double(), x[:, j].nanmean().double()
            errors.append(float((found.x[hidden, j] - target).square().sum() / (mean - target).square().sum()))
        if isinstance(column, Real | Positive | Integer):
            values = torch.cat([found.x[hidden, j].unsqueeze(0), found.samples[:, hidden, j]])
            outside += int(((values < np.float32(column.low)) | (values > np.float32(column.high))).sum())
            cells += values.numel()
    rows = pv.evaluation.log_likelihood(vae, test, num_particles=PARTICLES, progress=False).per_example
    nats = {"mean": float(rows.mean()), "median": float(rows.median())}
    return {"error": float(np.mean(errors)), "outside": outside, "cells": cells, **nats}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown; differences are ranged minus unranged, paired by seed."""
    lines = ["| table | error, ranged | unranged | difference | cells outside, ranged | unranged | nats per row, ranged "
             "| difference |", "|---" * 8 + "|"]
    for name in dict.fromkeys(row["table"] for row in rows):
        pairs = [[next(r for r in rows if (r["table"], r["seed"], r["ranged"]) == (name, seed, ranged))
                  for ranged in (True, False)] for seed in sorted({r["seed"] for r in rows})]
        yes, no = zip(*pairs, strict=True)
        share = 100 * sum(r["outside"] for r in no) / max(1, sum(r["cells"] for r in no))
        cells = [cell([r["error"] for r in yes], 3), cell([r["error"] for r in no], 3),
                 cell([a["error"] - b["error"] for a, b in pairs], 3), str(sum(r["outside"] for r in yes)),
                 f"{share:.2f}%", cell([r["log_likelihood"] for r in yes]),
                 cell([a["log_likelihood"] - b["log_likelihood"] for a, b in pairs])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "ranges.jsonl")
    options = parser.parse_args()
    results = Results(options.results, steps=options.steps)
    for name, x in tables(Path(os.environ["PYRO_VAE_DATA"])).items():
        types = {str(j): "Integer" for j in range(x.shape[1])} if name.startswith("UCI") else {}
        for seed in range(options.seeds):
            for ranged in (True, False):
                key = {"table": name, "seed": seed, "ranged": ranged}
                if not results.has(**key):
                    results.add({**key, **results.settings, **measure(x, types, ranged, seed, options.steps)})
    print(table(results.rows))


if __name__ == "__main__":
    main()
