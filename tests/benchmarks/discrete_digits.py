"""Binary latents: score-function estimators, reweighted wake-sleep, straight-through, and exact enumeration.

Run `python tests/benchmarks/discrete_digits.py`. Binarized digits (from the package; 1,297 for training, 300 for
testing), 200 Bernoulli latents under a learned prior, 64-200-200-64 with SiLU, batch 64, Adam 1e-3, 100 epochs, eight
particles (four pairs for DisARM; two for REBAR and RELAX, each with two relaxations, at about the same cost). Then the
same with eight latents, whose 256 values `Enumeration` sums over exactly. The log-likelihood is estimated by
importance sampling with 1,000 particles on all test data. One model per seed.

`--gradients` compares the gradients instead: the model with 200 latents after 20 epochs of ReinforceLOO, which stands
still while what an estimator learns itself is trained for 500 steps (Adam 0.01); then 100 gradients of the guide on 64
rows. The table has their variance, the time of a step, and the product of both.
"""

from __future__ import annotations

import argparse
import copy
import functools
import time
from pathlib import Path
from typing import Any

import torch
from reporting import Results, cell

import pyro_vae as pv
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.score import score_surrogate

E, SHAPE, PARTICLES, BATCH, RATE = pv.estimators, (8, 8), 8, 64, 1e-3
NET = functools.partial(pv.nets.MLP, hidden=(200,))
BITS, THROUGH = pv.posteriors.Bernoulli, pv.posteriors.StraightThroughBernoulli


class Plain(E.Estimator):
    """The log weight itself as the signal of the score function."""

    draws = pv.trace.Scored

    def bound(self, terms: pv.trace.Terms, beta: float | torch.Tensor) -> torch.Tensor:
        """Return the mean log weight of each example."""
        log_w = terms.log_w(beta)
        return with_gradient_of(log_w.mean(0), score_surrogate(terms, beta, log_w))


def relax(num_particles: int, latent: int = 200) -> pv.estimators.RELAX:
    """RELAX with a network of 200 units."""
    return E.RELAX(surrogate=NET((latent,), (1,)), num_particles=num_particles)


#: posterior and estimator of each contender, and the largest number of latents that it can handle
CONTENDERS = {
    "ReinforceLOO": (BITS, E.ReinforceLOO, 200),
    "NVIL": (BITS, E.NVIL, 200),
    "DisARM": (BITS, E.DisARM, 200),
    "VIMCO": (BITS, E.VIMCO, 200),
    "ReweightedWakeSleep": (BITS, E.ReweightedWakeSleep, 200),
    "ReweightedWakeSleep, sleep": (BITS, functools.partial(E.ReweightedWakeSleep, sleep=1.0), 200),
    "ReweightedWakeSleep, defensive": (BITS, functools.partial(E.ReweightedWakeSleep, defensive=0.2), 200),
    "REBAR": (BITS, lambda num_particles: E.REBAR(num_particles=num_particles // 4), 200),
    "RELAX": (BITS, lambda num_particles: relax(num_particles // 4), 200),
    "straight-through, ELBO": (THROUGH, E.ELBO, 200),
    "Enumeration (exact)": (BITS, lambda num_particles: E.Enumeration(), 8),
}


def trained(name: str, latent: int, seed: int, data: pv.data.Dataset, epochs: int) -> pv.VAE:
    """Train one model."""
    posterior, estimator, _ = CONTENDERS[name]
    torch.manual_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.Bernoulli(latent),
        likelihood=pv.likelihoods.Bernoulli(latent, SHAPE, net=NET),
        posterior=posterior(SHAPE, latent, net=NET),
    )
    pv.fit(
        vae,
        data.train,
        estimator=estimator(num_particles=PARTICLES) if name != "RELAX" else relax(PARTICLES // 4, latent),
        optimizer=functools.partial(torch.optim.Adam, lr=RATE),
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
    return vae


def compare(seed: int, data: pv.data.Dataset) -> list[dict[str, Any]]:
    """Return variance and cost of the gradients of each estimator of the ELBO, and of VIMCO."""
    vae = trained("ReinforceLOO", 200, seed, data, 20)
    named: dict[str, Any] = {
        "ReinforceLOO, 8": E.ReinforceLOO(num_particles=8),
        "ReinforceLOO, 2": E.ReinforceLOO(num_particles=2),
        "DisARM, 8": E.DisARM(num_particles=8),
        "NVIL, 8": E.NVIL(num_particles=8),
        "VIMCO, 8": E.VIMCO(num_particles=8),
        "score function without baseline, 8": Plain(num_particles=8),
        "REBAR, 2": E.REBAR(num_particles=2),
        "RELAX, 2": relax(2),
    }
    frozen, x = copy.deepcopy(vae).requires_grad_(False), data.train.x
    for estimator in named.values():
        if estimator.module is None:
            continue
        learned = list(estimator.module.parameters())
        optimizer = torch.optim.Adam(learned, lr=0.01) if learned else None
        for step in range(500):
            rows = torch.randint(len(x), (BATCH,), generator=torch.Generator().manual_seed(step))
            estimator.module.zero_grad()
            estimator.loss_and_grads(frozen.model, frozen.guide, x[rows])
            if optimizer is not None:
                optimizer.step()
    found = pv.evaluation.compare_estimators(vae, x[:BATCH], named, num_samples=100, seed=seed, progress=False)
    return [
        {
            "gradients": row.name,
            "seed": seed,
            "bound": row.bound,
            "variance": row.guide.variance,
            "milliseconds": row.milliseconds,
            "variance_times_ms": row.guide.variance * row.milliseconds,
        }
        for row in found.estimators
    ]


def run(name: str, latent: int, seed: int, data: pv.data.Dataset, epochs: int, particles: int) -> dict[str, Any]:
    """Train and evaluate one model."""
    start = time.process_time()
    vae = trained(name, latent, seed, data, epochs)
    seconds = time.process_time() - start
    elbo = E.ReinforceLOO(num_particles=100)
    with torch.no_grad():
        bound = elbo.per_datum(vae.model, vae.guide, data.test.x)
    found = pv.evaluation.log_likelihood(vae, data.test.x, num_particles=particles)
    return {
        "estimator": name,
        "latent": latent,
        "seed": seed,
        "epochs": epochs,
        "particles": particles,
        "bound": float(bound.mean()),
        "log_likelihood": found.mean,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--gradients", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), help="names of contenders")
    parser.add_argument("--latents", nargs="*", type=int, default=[200, 8])
    parser.add_argument("--results", type=Path, default=Path("runs/discrete_digits.jsonl"))
    options = parser.parse_args()
    data = pv.data.load("digits", binarize="static")
    if options.gradients:
        table = Results(options.results)
        for seed in range(options.seeds):
            for row in compare(seed, data) if not table.has(gradients="RELAX, 2", seed=seed) else ():
                table.add(row)
        print("| estimator | variance | ms | variance x ms |\n|---|---|---|---|")
        for name in dict.fromkeys(row["gradients"] for row in table.rows if "gradients" in row):
            rows = [row for row in table.rows if row.get("gradients") == name]
            cells = [cell([row[c] for row in rows], 3) for c in ("variance", "milliseconds", "variance_times_ms")]
            print(f"| {name} | {' | '.join(cells)} |")
        return
    results = Results(options.results, epochs=options.epochs, particles=options.particles)
    for seed in range(options.seeds):
        for latent in options.latents:
            for name, (_, _, most) in CONTENDERS.items():
                if (
                    name in options.only
                    and latent <= most
                    and not results.has(estimator=name, latent=latent, seed=seed)
                ):
                    results.add(run(name, latent, seed, data, options.epochs, options.particles))
    print(f"{options.epochs} epochs, {options.particles} particles, torch {torch.__version__}, mean ± standard error")
    print("| latents | estimator | seeds | test ELBO | log-likelihood | CPU s |\n|---|---|---|---|---|---|")
    for latent in (200, 8):
        for name in CONTENDERS:
            rows = [r for r in results.rows if (r["estimator"], r["latent"]) == (name, latent)]
            if rows:
                bound, log_px = (cell([r[column] for r in rows]) for column in ("bound", "log_likelihood"))
                seconds = cell([r["seconds"] for r in rows], 0)
                print(f"| {latent} | {name} | {len(rows)} | {bound} | {log_px} | {seconds} |")


if __name__ == "__main__":
    main()
