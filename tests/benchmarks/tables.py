"""Adult, Wine and Abalone: a VAE of mixed columns compared with independent columns, in nats, by column type.

Run `PYRO_VAE_DATA=... python tests/benchmarks/tables.py`. 8 latents, decoder and encoder with two hidden layers of
128, SiLU, standard normal prior, mean-field normal posterior, batch 250, Adam 2e-3, the ELBO with one particle, at
most 1,500 steps. A tenth of the training rows stops the training 20 epochs after its best bound, and the weights of
that epoch are used. The same settings for all tables, none chosen on a test row. In half of the rows of a batch all
columns of one type are hidden, as in the evaluation.

All densities are those of the table in its own units. The log-likelihood is that of the observed entries of a row, by
importance sampling with `--particles` samples. For each type of column,

    log p(entries of the type | all other entries) = log p(row) - log p(row without the type)

is the difference of two such estimates, summed over test rows and divided by the observed entries of the type.
"Independent columns" is the same likelihood with constant parameters, by maximum likelihood. The gain is what the VAE
learns about a type from the other columns and from columns of the same type.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from reporting import Results, cell
from torch import Tensor, nn
from uci import TABLES, columns_of

import pyro_vae as pv
from pyro_vae.data.tables import Column, Features
from pyro_vae.distributions.missing import hide_missing

LATENT, BATCH, RATE, STEPS, PATIENCE = 8, 250, 2e-3, 1500, 20
NET = functools.partial(pv.nets.MLP, hidden=(128, 128))


def types_of(columns: Sequence[Column]) -> dict[str, Tensor]:
    """Return for each type of column which columns have it."""
    names = [type(c).__name__ for c in columns]
    return {name: torch.tensor([n == name for n in names]) for name in sorted(set(names))}


class Constant(nn.Module):
    """A decoder that ignores its latents."""

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(out_shape))

    def forward(self, z: Tensor) -> Tensor:
        return self.raw.expand(*z.shape[:-1], *self.raw.shape)


@dataclass(frozen=True)
class HideOneType:
    """A transform that hides the columns of a random type in half of the rows."""

    types: Tensor

    def __call__(self, batch: Tensor) -> Tensor:
        n = len(self.types)
        padded = torch.cat([self.types, torch.zeros_like(self.types)])
        return batch.masked_fill(padded[torch.randint(2 * n, batch.shape[:1])], math.nan)


def train(columns: Sequence[Column], x: Tensor, seed: int) -> pv.VAE:
    """Return a trained VAE."""
    torch.manual_seed(seed)
    shape = (len(columns),)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.Heterogeneous(LATENT, shape, columns=columns, net=NET),
        posterior=pv.posteriors.MeanFieldNormal(
            shape, LATENT, net=functools.partial(Features, columns, net=NET, missing=True)
        ),
        missing=True,
    )
    cut = len(x) // 10
    rows = pv.data.Split(x[cut:], transform=HideOneType(torch.stack(list(types_of(columns).values()))))
    pv.fit(
        vae,
        rows,
        valid=x[:cut],
        optimizer=functools.partial(torch.optim.Adam, lr=RATE),
        epochs=max(1, STEPS * BATCH // len(rows)),
        batch_size=BATCH,
        seed=seed,
        callbacks=[pv.training.EarlyStopping(PATIENCE)],
        progress=False,
    )
    return vae


def independent(columns: Sequence[Column], x: Tensor) -> pv.Conditional:
    """Return a likelihood whose columns are independent, by maximum likelihood."""
    likelihood = pv.likelihoods.Heterogeneous(1, (len(columns),), columns=columns, net=Constant)
    optimizer = torch.optim.LBFGS(likelihood.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        minus = -entries(likelihood, x).sum() / len(x)
        minus.backward()
        return minus.detach()

    optimizer.step(loss)
    return likelihood


def entries(likelihood: pv.Conditional, x: Tensor) -> Tensor:
    """Return the log-density of each entry under independent columns, 0 where it is missing."""
    fn, filled = hide_missing(likelihood(x.new_zeros(1, 1)), x)
    return fn.base_dist.log_prob(filled)


def by_type(totals: dict[str, Tensor], columns: Sequence[Column], x: Tensor) -> dict[str, float]:
    """Return nats per observed entry from the sum over the entries of a type, of shape ``(rows,)`` each."""
    seen = ~torch.isnan(x)
    return {name: float(totals[name].sum() / seen[:, which].sum()) for name, which in types_of(columns).items()}


def measure_vae(vae: pv.VAE, columns: Sequence[Column], x: Tensor, particles: int) -> dict[str, Any]:
    """Return the log-likelihood of whole rows, and of each type given the rest."""
    whole = pv.evaluation.log_likelihood(vae, x, num_particles=particles)
    totals, ess = {}, float(whole.ess.median())
    for name, which in types_of(columns).items():
        rest = pv.evaluation.log_likelihood(vae, x.masked_fill(which, math.nan), num_particles=particles)
        totals[name] = whole.per_example - rest.per_example
        ess = min(ess, float(rest.ess.median()))
    return {"row": whole.mean, **by_type(totals, columns, x), "lowest_median_ess": round(ess, 1)}


def measure_independent(likelihood: pv.Conditional, columns: Sequence[Column], x: Tensor) -> dict[str, Any]:
    """Return the same for independent columns, exactly."""
    with torch.no_grad():
        found = entries(likelihood, x)
    totals = {name: found[:, which].sum(-1) for name, which in types_of(columns).items()}
    return {"row": float(found.sum(-1).mean()), **by_type(totals, columns, x)}


def table(rows: list[dict[str, Any]], columns: dict[str, Sequence[Column]]) -> str:
    """Return the table in Markdown, in nats per row and per observed entry."""
    lines = [
        "| table | what | columns | VAE | independent columns | gain |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in columns.items():
        mine = [row["found"] for row in rows if (row["table"], row["model"]) == (name, "VAE")]
        other = [row["found"] for row in rows if (row["table"], row["model"]) == (name, "independent")]
        if not mine or not other:
            continue
        for key in ("row", *types_of(own)):
            count = len(own) if key == "row" else int(types_of(own)[key].sum())
            what = "whole row" if key == "row" else f"{key}, given the rest"
            base = other[0][key]
            found = [row[key] for row in mine]
            gain = [v - base for v in found]
            lines.append(f"| {name} | {what} | {count} | {cell(found, 3)} | {base:.3f} | {cell(gain, 3)} |")
        seconds = [row["seconds"] for row in rows if (row["table"], row["model"]) == (name, "VAE")]
        lines.append(f"| {name} | CPU seconds of training | | {statistics.median(seconds):.0f} | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=100)
    parser.add_argument("--results", type=Path, default=Path("runs/tables.jsonl"))
    options = parser.parse_args()
    results = Results(options.results, particles=options.particles, steps=STEPS)
    columns: dict[str, Sequence[Column]] = {}
    for name, load in TABLES.items():
        train_rows, test_rows = load(Path(os.environ["PYRO_VAE_DATA"]))
        columns[name] = columns_of(train_rows)
        x, test = (pv.data.Table(rows, columns[name]).x for rows in (train_rows, test_rows))
        for seed in range(options.seeds):
            row = {"table": name, "model": "VAE", "seed": seed}
            if not results.has(**row):
                start = time.process_time()
                vae = train(columns[name], x, seed)
                seconds = round(time.process_time() - start, 1)
                found = measure_vae(vae, columns[name], test, options.particles)
                results.add({**row, **results.settings, "found": found, "seconds": seconds})
        row = {"table": name, "model": "independent", "seed": 0}
        if not results.has(**row):
            found = measure_independent(independent(columns[name], x), columns[name], test)
            results.add({**row, **results.settings, "found": found})
    print(f"importance sampling with {options.particles} particles, torch {torch.__version__}")
    print(table(results.rows, columns))


if __name__ == "__main__":
    main()
