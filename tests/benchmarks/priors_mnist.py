"""Static MNIST: four priors with two posteriors; the same network, budget and seeds.

Run `PYRO_VAE_DATA=... python tests/benchmarks/priors_mnist.py`. 784-300-300-40-300-300-784 with SiLU, Bernoulli, batch
250, Adam 1e-3, the ELBO with one particle. The log-likelihood is that of all 10,000 test images by importance sampling
with 200 particles. One model per seed; a row that is in the results file is not measured again.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from reporting import Results, cell

import pyro_vae as pv

SHAPE, LATENT, BATCH, RATE, COMPONENTS = (28, 28), 40, 250, 1e-3, 500
NET = functools.partial(pv.nets.MLP, hidden=(300, 300))
PRIORS = {
    "StandardNormal": lambda posterior: pv.priors.StandardNormal(LATENT),
    "MixtureOfNormals(500)": lambda posterior: pv.priors.MixtureOfNormals(LATENT, num_components=COMPONENTS),
    "VampPrior(500)": lambda posterior: pv.priors.VampPrior(encoder_of(posterior), num_components=COMPONENTS),
    "AffineCouplingFlow": lambda posterior: pv.priors.AffineCouplingFlow(
        LATENT, net=functools.partial(pv.nets.MLP, hidden=(128, 128))
    ),
}
POSTERIORS = {"MeanField": pv.posteriors.MeanFieldNormal, "IAF": pv.posteriors.InverseAutoregressiveFlow}


def encoder_of(posterior: pv.Conditional) -> pv.Conditional:
    """Return the posterior that the VampPrior averages: the given one, or for IAF a separate mean-field posterior.

    The density of a latent that an inverse autoregressive flow did not sample takes one pass per latent, here for
    each pair of an example and a pseudo-input.
    """
    inverse = isinstance(posterior, pv.posteriors.InverseAutoregressiveFlow)
    return pv.posteriors.MeanFieldNormal(SHAPE, LATENT, net=NET) if inverse else posterior


def run(prior: str, posterior: str, seed: int, data: pv.data.Dataset, epochs: int, particles: int) -> dict[str, Any]:
    """Train and evaluate one model."""
    torch.manual_seed(seed)
    q = POSTERIORS[posterior](SHAPE, LATENT, net=NET)
    likelihood = pv.likelihoods.Bernoulli(LATENT, SHAPE, net=NET)
    vae = pv.VAE(prior=PRIORS[prior](q), likelihood=likelihood, posterior=q)
    start = time.perf_counter()
    adam = functools.partial(torch.optim.Adam, lr=RATE)
    pv.fit(vae, data.train, optimizer=adam, epochs=epochs, batch_size=BATCH, seed=seed, progress=False)
    seconds = time.perf_counter() - start
    elbo = pv.estimators.ELBO()
    with torch.no_grad():
        bound = torch.cat([elbo.per_datum(vae.model, vae.guide, part) for part in data.test.x.split(500)])
    found = pv.evaluation.log_likelihood(vae, data.test.x, num_particles=particles)
    return {
        "prior": prior,
        "posterior": posterior,
        "seed": seed,
        "epochs": epochs,
        "bound": float(bound.mean()),
        "log_likelihood": found.mean,
        "seconds": round(seconds, 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown, gains paired by seed."""
    found = {(row["prior"], row["posterior"], row["seed"]): row for row in rows}

    def gain(row: dict[str, Any], prior: str, posterior: str) -> float | None:
        other = found.get((prior, posterior, row["seed"]))
        return None if other is None else row["log_likelihood"] - other["log_likelihood"]

    lines = [
        "| prior | posterior | seeds | test bound | log-likelihood | to StandardNormal | to MeanField | seconds |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for prior in PRIORS:
        for posterior in POSTERIORS:
            mine = [row for row in rows if (row["prior"], row["posterior"]) == (prior, posterior)]
            if not mine:
                continue
            columns = (
                [row["bound"] for row in mine],
                [row["log_likelihood"] for row in mine],
                [gain(row, "StandardNormal", posterior) for row in mine if prior != "StandardNormal"],
                [gain(row, prior, "MeanField") for row in mine if posterior != "MeanField"],
            )
            cells = " | ".join(map(cell, columns))
            seconds = statistics.median(row["seconds"] for row in mine)
            lines.append(f"| {prior} | {posterior} | {len(mine)} | {cells} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=200)
    parser.add_argument("--results", type=Path, default=Path("runs/priors_mnist.jsonl"))
    options = parser.parse_args()
    data = pv.data.load("mnist_static")
    results = Results(options.results, epochs=options.epochs)
    for seed in range(options.seeds):
        for posterior in POSTERIORS:
            for prior in PRIORS:
                if not results.has(prior=prior, posterior=posterior, seed=seed):
                    results.add(run(prior, posterior, seed, data, options.epochs, options.particles))
    print(
        f"{options.epochs} epochs, importance sampling with {options.particles} particles, torch {torch.__version__}"
    )
    print(table(results.rows))


if __name__ == "__main__":
    main()
