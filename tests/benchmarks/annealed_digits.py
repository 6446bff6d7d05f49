"""DAIS, ELBO and IWAE at equal cost.

Run `python tests/benchmarks/annealed_digits.py`. Binarized digits (from the package; 1,297 for training, 300 for
testing), 20 normal latents, 64-100-20-100-64 with SiLU, batch 64, Adam 1e-3. DAIS has 5 steps and one particle; IWAE
has 16 particles, about as many evaluations of the decoder (a run with its gradient counts as three). Each model is
measured on all test data by its own bound, by IWAE with 16 particles, by DAIS with 5 steps whose sizes are learned for
this model while it stands still (one size per dimension, 300 steps of Adam 0.02 on training data), and by importance
sampling with 1,000 particles. One model per seed.
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

E, SHAPE, LATENT = pv.estimators, (8, 8), 20
NET = functools.partial(pv.nets.MLP, hidden=(100,))
CONTENDERS = {
    "ELBO": E.ELBO,
    "IWAE, 16": functools.partial(E.IWAE, num_particles=16),
    "DAIS, 5 steps": functools.partial(E.DAIS, num_steps=5),
    "DAIS, 5 steps, a size per dimension": functools.partial(E.DAIS, num_steps=5, step_size=[0.1] * LATENT),
}
COLUMNS = ("bound", "IWAE, 16", "DAIS, 5", "log_likelihood")


def tuned(vae: pv.VAE, x: torch.Tensor) -> E.DAIS:
    """Return DAIS with step sizes and damping that are learned for a model."""
    estimator, frozen = E.DAIS(num_steps=5, step_size=[0.1] * LATENT), copy.deepcopy(vae).requires_grad_(False)
    optimizer = torch.optim.Adam(estimator.module.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        estimator.loss_and_grads(frozen.model, frozen.guide, x[torch.randint(len(x), (64,))])
        optimizer.step()
    return estimator


def run(name: str, seed: int, data: pv.data.Dataset, epochs: int) -> dict[str, Any]:
    """Train and evaluate one model."""
    torch.manual_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.Bernoulli(LATENT, SHAPE, net=NET),
        posterior=pv.posteriors.MeanFieldNormal(SHAPE, LATENT, net=NET),
    )
    estimator, start = CONTENDERS[name](), time.process_time()
    optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
    options = {"epochs": epochs, "batch_size": 64, "seed": seed, "progress": False}
    pv.fit(vae, data.train, estimator=estimator, optimizer=optimizer, **options)
    seconds = time.process_time() - start
    x = data.test.x

    def bound(estimator: E.Estimator) -> float:
        torch.manual_seed(seed)
        with torch.no_grad():
            each = [estimator.per_datum(vae.model, vae.guide, x) for _ in range(20)]
        return float(torch.stack(each).mean())

    learned = {} if estimator.module is None else estimator.module.state_dict()
    learned = {key: [round(float(v), 3) for v in value.flatten()] for key, value in learned.items()}
    return {
        "estimator": name,
        "seed": seed,
        "epochs": epochs,
        "bound": bound(estimator),
        "IWAE, 16": bound(E.IWAE(num_particles=16)),
        "DAIS, 5": bound(tuned(vae, data.train.x)),
        "log_likelihood": pv.evaluation.log_likelihood(vae, x, num_particles=1000, progress=False).mean,
        "seconds": round(seconds, 1),
        "learned": learned,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("runs/annealed_digits.jsonl"))
    options = parser.parse_args()
    results, data = Results(options.results, epochs=options.epochs), pv.data.load("digits", binarize="static")
    for seed in range(options.seeds):
        for name in CONTENDERS:
            if not results.has(estimator=name, seed=seed):
                results.add(run(name, seed, data, options.epochs))
    print(f"{options.epochs} epochs, torch {torch.__version__}, mean ± standard error")
    print("| estimator | seeds | test bound | IWAE, 16 | tuned DAIS, 5 | log-likelihood | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for name in CONTENDERS:
        rows = [r for r in results.rows if r["estimator"] == name]
        cells = [cell([r[column] for r in rows]) for column in COLUMNS]
        print(f"| `{name}` | {len(rows)} | {' | '.join(cells)} | {cell([r['seconds'] for r in rows], 0)} |")


if __name__ == "__main__":
    main()
