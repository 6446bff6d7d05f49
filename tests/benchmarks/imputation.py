"""Tables with half of the entries missing completely at random: the error of imputation, and coverage.

Run `PYRO_VAE_DATA=... python tests/benchmarks/imputation.py`. Data: red wine, white wine (11 columns each, without the
quality) and scikit-learn's breast cancer set (30 columns), standardised by their observed entries. Each of 5 masks
hides every entry with probability 0.5; a row that would lose all entries keeps one. All methods see the same entries,
and learn from the rows that they impute. The error is the mean squared error of the hidden entries divided by that of
the means of the observed columns, so that the mean scores 1.

The VAE: 10 latents, networks with two hidden layers of 128, tanh, zero-imputed encoder, Student-t likelihood, MIWAE
bound with 20 particles (IWAE), batch 64, Adam 1e-3; the same settings for all tables, none chosen on a hidden entry.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import Results, cell
from torch import Tensor

import pyro_vae as pv

LATENT, PARTICLES, BATCH = 10, 20, 64
TABLES = ("red wine", "white wine", "breast cancer")
NET = functools.partial(pv.nets.MLP, hidden=(128, 128), activation=torch.nn.Tanh)


def load(name: str) -> np.ndarray:
    """Return the columns of a table, (rows, columns)."""
    if name == "breast cancer":
        from sklearn.datasets import load_breast_cancer

        return load_breast_cancer().data
    path = Path(os.environ["PYRO_VAE_DATA"]) / "uci_wine_quality" / f"winequality-{name.split()[0]}.csv"
    return np.loadtxt(path, delimiter=";", skiprows=1)[:, :-1]


def hide(x: np.ndarray, seed: int, share: float = 0.5) -> np.ndarray:
    """Return x with NaN in a share of its entries."""
    rng = np.random.default_rng(seed)
    holes = rng.random(x.shape) < share
    full = np.flatnonzero(holes.all(1))
    holes[full, rng.integers(x.shape[1], size=len(full))] = False
    return np.where(holes, np.nan, x)


def baselines(x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the imputations of other methods."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    methods = {
        "mean": SimpleImputer(),
        "nearest neighbours (10)": KNNImputer(n_neighbors=10),
        "IterativeImputer": IterativeImputer(random_state=0),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rounds stop before they converge
        return {name: method.fit_transform(x) for name, method in methods.items()}


def train(x: Tensor, seed: int, steps: int) -> pv.VAE:
    """Return a VAE trained on rows with missing entries."""
    torch.manual_seed(seed)
    shape = x.shape[1:]
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.StudentT(LATENT, shape, net=NET, scale=pv.scales.PerExample()),
        posterior=pv.posteriors.MeanFieldNormal(shape, LATENT, net=functools.partial(pv.nets.ZeroImputed, net=NET)),
        missing=True,
    )
    pv.fit(
        vae,
        x,
        estimator=pv.estimators.IWAE(num_particles=PARTICLES),
        optimizer=functools.partial(torch.optim.Adam, lr=1e-3),
        epochs=max(1, steps * BATCH // len(x)),
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
    return vae


def measure(name: str, seed: int, steps: int, particles: int) -> dict[str, Any]:
    """Return the error of each method, and the coverage of the VAE's intervals, for one mask."""
    whole = load(name)
    seen = hide(whole, seed)
    mean, deviation = np.nanmean(seen, 0), np.nanstd(seen, 0)
    truth, x = (whole - mean) / deviation, (seen - mean) / deviation
    holes = np.isnan(x)
    base = float((truth[holes] ** 2).mean())
    found = {key: float(((v - truth)[holes] ** 2).mean()) / base for key, v in baselines(x).items()}
    start = time.process_time()
    vae = train(torch.as_tensor(x).float(), seed, steps)
    seconds = round(time.process_time() - start, 1)
    ours = pv.tasks.impute(vae, torch.as_tensor(x).float(), num_particles=particles, num_samples=200, seed=seed)
    chain = pv.tasks.pseudo_gibbs(vae, torch.as_tensor(x).float(), num_samples=100, burn_in=100, seed=seed)
    target = torch.as_tensor(truth)
    found |= {"VAE": ours.squared_error(target) / base, "VAE, pseudo-Gibbs": chain.squared_error(target) / base}
    cover = {str(level): ours.coverage(target, level) for level in (0.5, 0.9)}
    return {"found": found, "cover": cover, "ess": float(ours.ess.median()), "seconds": seconds}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown: mean and standard error over masks."""
    names = list(rows[0]["found"])
    lines = [f"| table | {' | '.join(names)} | covered at 50% | at 90% |", "|---" * (len(names) + 3) + "|"]
    for name in TABLES:
        mine = [row for row in rows if row["table"] == name]
        if mine:
            errors = [cell([row["found"][key] for row in mine], 3) for key in names]
            cover = [cell([row["cover"][level] for row in mine], 3) for level in ("0.5", "0.9")]
            lines.append(f"| {name} | {' | '.join(errors + cover)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--masks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5000, help="number of optimizer steps")
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=Path("runs/imputation.jsonl"))
    options = parser.parse_args()
    results = Results(options.results, steps=options.steps, particles=options.particles)
    for name in options.tables:
        for seed in range(options.masks):
            if not results.has(table=name, seed=seed):
                row = {"table": name, "seed": seed, **results.settings}
                results.add({**row, **measure(name, seed, options.steps, options.particles)})
    print(table(results.rows))


if __name__ == "__main__":
    main()
