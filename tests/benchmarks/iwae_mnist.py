"""Dynamic MNIST under four estimators with 1, 5 and 50 particles: equal epochs, the network of Burda et al. (2016).

Run `PYRO_VAE_DATA=... python tests/benchmarks/iwae_mnist.py`. 784-200-200-50 and back with tanh, Bernoulli, batch 100,
Adam 1e-3, 5 epochs over all training images, binarized in each epoch (the paper has 3,280 epochs with batches of 20).
With one particle the importance-weighted bound is the ELBO, so IWAE and DReG start at 5. The log-likelihood is that of
the first 2,000 test images, binarized once, by importance sampling with 1,000 particles. One model per seed.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import torch
from reporting import Results, cell
from torch import nn

import pyro_vae as pv

SHAPE, LATENT, BATCH, RATE, TEST = (28, 28), 50, 100, 1e-3, 2000
NET = functools.partial(pv.nets.MLP, hidden=(200, 200), activation=nn.Tanh)
ESTIMATORS = {
    "ELBO": pv.estimators.ELBO,
    "IWAE": pv.estimators.IWAE,
    "DReG": pv.estimators.DReG,
    "StickingTheLanding": pv.estimators.StickingTheLanding,
}
PAIRS = [(name, k) for k in (1, 5, 50) for name in ESTIMATORS if k > 1 or name not in ("IWAE", "DReG")]


def run(name: str, k: int, seed: int, data: pv.data.Dataset, x: torch.Tensor, epochs: int) -> dict[str, Any]:
    """Train and evaluate one model."""
    torch.manual_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.Bernoulli(LATENT, SHAPE, net=NET),
        posterior=pv.posteriors.MeanFieldNormal(SHAPE, LATENT, net=NET),
    )
    start = time.process_time()
    pv.fit(
        vae,
        data.train,
        estimator=ESTIMATORS[name](num_particles=k),
        optimizer=functools.partial(torch.optim.Adam, lr=RATE),
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
    seconds = time.process_time() - start
    found = pv.evaluation.log_likelihood(vae, x, num_particles=1000)
    row = {"estimator": name, "k": k, "seed": seed, "epochs": epochs}
    return {**row, "log_likelihood": found.mean, "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("runs/iwae_mnist.jsonl"))
    options = parser.parse_args()
    data = pv.data.load("mnist", binarize="dynamic")
    x = pv.data.load("mnist", binarize="static").test.x[:TEST]
    results = Results(options.results, epochs=options.epochs)
    for seed in range(options.seeds):
        for name, k in PAIRS:
            if not results.has(estimator=name, k=k, seed=seed):
                results.add(run(name, k, seed, data, x, options.epochs))
    print(f"{options.epochs} epochs, torch {torch.__version__}, mean ± standard error over the seeds")
    print("| estimator | particles | seeds | log-likelihood | CPU s |\n|---|---|---|---|---|")
    for name, k in PAIRS:
        rows = [row for row in results.rows if (row["estimator"], row["k"]) == (name, k)]
        if rows:
            seconds = cell([row["seconds"] for row in rows], 0)
            print(f"| {name} | {k} | {len(rows)} | {cell([row['log_likelihood'] for row in rows])} | {seconds} |")


if __name__ == "__main__":
    main()
