"""Columns with and without a range: imputation error, values outside the range, and held-out log-likelihood.

Run `PYRO_VAE_DATA=... python tests/benchmarks/ranges.py`. At most 500 rows of 15 tables that were not used to choose
the settings of columns, a fifth held out. 30% of the entries of the other rows are hidden at random, none of a row
that would lose all. Types are those of the whole table, units and ranges of observed entries. The unranged VAE has the
same columns without ends. The error is the mean over columns of numbers of the squared error of imputed means over
that of the observed mean. A count has no upper end, and is not counted among the cells outside.
"""

from __future__ import annotations

import argparse
import functools
import itertools
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

LATENT, BATCH, HIDDEN, SAMPLES, PARTICLES, ROWS, SEEDS, STEPS = 8, 128, 0.3, 10, 50, 500, 3, 300


def tables(root: Path) -> dict[str, np.ndarray]:
    """Return all tables by name, as arrays (rows, columns) without constant columns."""
    from sklearn import datasets

    found = {path.stem: np.load(path)["X"] for path in sorted((root / "adbench").glob("*.npz"))}
    found["UCI breast cancer"] = np.genfromtxt(
        next(root.glob("uci_breast*/*.data")), delimiter=",", missing_values="?"
    )[:, 1:-1]
    found |= {f"sklearn {n}": getattr(datasets, f"load_{n}")().data for n in ("iris", "wine", "breast_cancer")}
    found["sklearn diabetes"] = datasets.load_diabetes(scaled=False).data
    return {name: x[:, [np.unique(c).size > 1 for c in x.T]] for name, x in found.items()}


def hide(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return x with NaN in some of its entries."""
    holes = rng.random(x.shape) < HIDDEN
    return np.where(holes & ~(holes | np.isnan(x)).all(1, keepdims=True), np.nan, x)


def unranged(column: Column) -> Column:
    """Return a column without the ends of its range."""
    if isinstance(column, Real | Positive):
        return replace(column, low=None, high=None)
    if isinstance(column, Integer):
        return Integer(column.name, column.shift, column.scale, cells=column.cells)
    return replace(column, high=None) if isinstance(column, Count) else column


def measure(whole: np.ndarray, types: dict[str, str], ranged: bool, seed: int) -> dict[str, Any]:
    """Return the error of imputation, the share of cells outside the range, and the held-out log-likelihood."""
    rng = np.random.default_rng(seed)
    whole = whole[rng.permutation(len(whole))[:ROWS]]
    cut = len(whole) * 4 // 5
    known = pv.data.tables.schema(whole, types)
    seen = pv.data.tables.schema(shown := hide(whole[:cut], rng), {c.name: type(c) for c in known})
    own = [k if isinstance(k, Labels) else c for k, c in zip(known, seen, strict=True)]
    columns = own if ranged else [unranged(c) for c in own]
    x, truth, test = (pv.data.Table(rows, columns).x for rows in (shown, whole[:cut], whole[cut:]))
    torch.manual_seed(seed)
    shape, features = (len(columns),), functools.partial(Features, columns, missing=True)
    prior, likelihood = pv.priors.StandardNormal(LATENT), pv.likelihoods.Heterogeneous(LATENT, shape, columns=columns)
    posterior = pv.posteriors.MeanFieldNormal(shape, LATENT, net=features)
    vae = pv.VAE(prior=prior, likelihood=likelihood, posterior=posterior, missing=True)
    pv.fit(vae, x, epochs=max(1, STEPS // -(-len(x) // BATCH)), seed=seed, progress=False)
    found = pv.tasks.impute(vae, x, num_particles=PARTICLES, num_samples=SAMPLES, seed=seed, progress=False)
    errors, outside, cells = [], 0, 0
    for j, column in enumerate(own):
        hidden = torch.isnan(x[:, j]) & ~torch.isnan(truth[:, j])
        known = x[:, j][~torch.isnan(x[:, j])]
        if isinstance(column, Real | Positive | Integer | Count) and hidden.any() and len(known.unique()) > 1:
            target, mean = truth[hidden, j].double(), known.double().mean()
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
    lines = ["| table | error | difference | cells outside | unranged | nats per row | difference |", "|---" * 7 + "|"]
    for name in dict.fromkeys(row["table"] for row in rows):
        yes, no = ([r for r in rows if r["table"] == name and r["ranged"] is ranged] for ranged in (True, False))
        found = [name]
        for key, digits in (("error", 3), ("median", 2)):
            apart = [a[key] - b[key] for a, b in zip(yes, no, strict=True)]
            found += [cell([r[key] for r in yes], digits), cell(apart, digits)]
        outside, share = sum(r["outside"] for r in yes), sum(r["outside"] for r in no) / sum(r["cells"] for r in no)
        found[3:3] = [str(outside), f"{share:.2%}"]
        lines.append(f"| {' | '.join(found)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "ranges.jsonl")
    options = parser.parse_args()
    results = Results(options.results, steps=STEPS)
    for name, x in tables(Path(os.environ["PYRO_VAE_DATA"])).items():
        types = {str(j): "Integer" for j in range(x.shape[1])} if name.startswith("UCI") else {}
        for seed, ranged in itertools.product(range(SEEDS), (True, False)):
            key = {"table": name, "seed": seed, "ranged": ranged}
            if not results.has(**key):
                results.add({**key, **results.settings, **measure(x, types, ranged, seed)})
    print(table(results.rows))


if __name__ == "__main__":
    main()
