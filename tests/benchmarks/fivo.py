"""FIVO on a nonlinear state space model: held-out bounds of a SequenceVAE trained under ELBO, IWAE and FIVO.

Run `python tests/benchmarks/fivo.py`. The univariate growth model (Gordon et al., 1993,
https://doi.org/10.1049/ip-f-2.1993.0015, less noise), whose observation z^2 / 20 leaves the sign of z
open: z_t = z / 2 + 25 z / (1 + z^2) + noise of std 3 with z = z_(t-1), x_t = z_t^2 / 20 + noise of std 1. 300 training
and 200 test sequences of 25 steps, standardized. One latent; transition, likelihood and posterior have 32 hidden
units and learned scales; the guide sees x_t and z_(t-1) alone (a filter), as in Maddison et al. (2017,
https://arxiv.org/abs/1705.09279). Adam 1e-2 with cosine decay, batches of 100. All programs have the same number of
steps, and those with the same seed the same initial weights.

Bounds are nats per sequence on the test set: that of the estimator a program was trained under, then IWAE and FIVO
with 256 particles for every program. The highest of the last two is the best estimate of the log-likelihood.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from reporting import Results, cell
from torch import Tensor, nn

import pyro_vae as pv

E = pv.estimators
NET = partial(pv.nets.MLP, hidden=(32,))
ESTIMATORS: dict[str, Callable[[], E.Estimator]] = {
    "ELBO (1)": lambda: E.ELBO(),
    "IWAE (4)": lambda: E.IWAE(num_particles=4),
    "FIVO (4)": lambda: E.FIVO(num_particles=4),
    "IWAE (16)": lambda: E.IWAE(num_particles=16),
    "FIVO (16)": lambda: E.FIVO(num_particles=16),
}
JUDGES: dict[str, Callable[[], E.Estimator]] = {
    "IWAE (256)": lambda: E.IWAE(num_particles=256),
    "FIVO (256)": lambda: E.FIVO(num_particles=256),
}


class Present(nn.Module):
    """A summary of each step by itself, so that the guide filters."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return x


def simulate(n: int, length: int, seed: int) -> Tensor:
    """Sample sequences of the growth model, ``(n, length, 1)``, approximately standardized."""
    g = torch.Generator().manual_seed(seed)
    z, steps = 2 * torch.randn(n, generator=g), []
    for _ in range(length):
        z = z / 2 + 25 * z / (1 + z**2) + 3 * torch.randn(n, generator=g)
        steps.append(z**2 / 20 + torch.randn(n, generator=g))
    return (torch.stack(steps, -1).unsqueeze(-1) - 5.0) / 5.0


def build(seed: int) -> pv.programs.SequenceVAE:
    """Build a program with weights initialized from the seed."""
    torch.manual_seed(seed)
    return pv.programs.SequenceVAE(
        prior=pv.priors.Normal(1),
        transition=pv.priors.ConditionalNormal(1, context=1, net=NET),
        likelihood=pv.likelihoods.Normal(1, (1,), net=NET, scale=pv.scales.Shared(0.5)),
        posterior=pv.posteriors.MeanFieldNormal((1,), 1, context=1, net=NET),
        summary=Present(),
    )


def bound(program: pv.Program, estimator: E.Estimator, x: Tensor) -> float:
    """Return the bound in nats per sequence."""
    with torch.no_grad():
        return float(estimator.per_datum(program.model, program.guide, x).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=25)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "fivo.jsonl")
    args = parser.parse_args()
    x, test = simulate(300, args.length, 1), simulate(200, args.length, 2)
    settings = {"length": args.length, "epochs": args.epochs}
    results = Results(args.results, **settings)
    for seed in range(args.seeds):
        for name, make in ESTIMATORS.items():
            if results.has(name=name, seed=seed):
                continue
            program, start = build(seed), time.perf_counter()
            pv.fit(
                program,
                x,
                estimator=make(),
                optimizer=partial(torch.optim.Adam, lr=1e-2),
                lr_schedule=pv.training.Cosine(3 * args.epochs),
                epochs=args.epochs,
                batch_size=100,
                seed=seed,
                progress=False,
            )
            row = {"name": name, "seed": seed, **settings, "seconds": round(time.perf_counter() - start, 1)}
            torch.manual_seed(seed)
            row["own bound"] = bound(program, make(), test)
            results.add(row | {judge: bound(program, made(), test) for judge, made in JUDGES.items()})
    columns = ["own bound", *JUDGES]
    print(f"| trained under | {' | '.join(columns)} | seconds |\n|---|{'---|' * (len(columns) + 1)}")
    for name in ESTIMATORS:
        rows = [row for row in results.rows if row["name"] == name]
        print(f"| {name} | {' | '.join(cell([row[c] for row in rows]) for c in [*columns, 'seconds'])} |")


if __name__ == "__main__":
    main()
