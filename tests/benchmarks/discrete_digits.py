"""Binary latents: score-function estimators, reweighted wake-sleep, straight-through, and exact enumeration.

Run `python tests/benchmarks/discrete_digits.py`. Binarized digits (from the package; 1,297 for training, 300 for
testing), 200 Bernoulli latents under a learned prior, 64-200-200-64 with SiLU, batch 64, Adam 1e-3, 100 epochs, eight
particles (four pairs for DisARM). Then the same with eight latents, whose 256 values `Enumeration` sums over exactly.
The log-likelihood is estimated by importance sampling with 1,000 particles on all test data. One model per seed.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import torch
from reporting import Results, cell

import pyro_vae as pv

E, SHAPE, PARTICLES, BATCH, RATE = pv.estimators, (8, 8), 8, 64, 1e-3
NET = functools.partial(pv.nets.MLP, hidden=(200,))
BITS, THROUGH = pv.posteriors.Bernoulli, pv.posteriors.StraightThroughBernoulli
#: posterior and estimator of each contender, and the largest number of latents that it can handle
CONTENDERS = {
    "ReinforceLOO": (BITS, E.ReinforceLOO, 200),
    "NVIL": (BITS, E.NVIL, 200),
    "DisARM": (BITS, E.DisARM, 200),
    "VIMCO": (BITS, E.VIMCO, 200),
    "ReweightedWakeSleep": (BITS, E.ReweightedWakeSleep, 200),
    "straight-through, ELBO": (THROUGH, E.ELBO, 200),
    "Enumeration (exact)": (BITS, lambda num_particles: E.Enumeration(), 8),
}


def run(name: str, latent: int, seed: int, data: pv.data.Dataset, epochs: int, particles: int) -> dict[str, Any]:
    """Train and evaluate one model."""
    posterior, estimator, _ = CONTENDERS[name]
    torch.manual_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.Bernoulli(latent),
        likelihood=pv.likelihoods.Bernoulli(latent, SHAPE, net=NET),
        posterior=posterior(SHAPE, latent, net=NET),
    )
    start = time.process_time()
    pv.fit(
        vae,
        data.train,
        estimator=estimator(num_particles=PARTICLES),
        optimizer=functools.partial(torch.optim.Adam, lr=RATE),
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
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
    parser.add_argument("--results", type=Path, default=Path("runs/discrete_digits.jsonl"))
    options = parser.parse_args()
    data = pv.data.load("digits", binarize="static")
    results = Results(options.results, epochs=options.epochs, particles=options.particles)
    for seed in range(options.seeds):
        for latent in (200, 8):
            for name, (_, _, most) in CONTENDERS.items():
                if latent <= most and not results.has(estimator=name, latent=latent, seed=seed):
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
