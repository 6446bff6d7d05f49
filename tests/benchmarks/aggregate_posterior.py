"""MNIST: samples from the prior of a VAE and from densities that are fitted to its latents after training.

Run `PYRO_VAE_DATA=... python tests/benchmarks/aggregate_posterior.py`. 784-300-300-12-300-300-784 with SiLU,
Bernoulli, batch 200, Adam 1e-3, the ELBO with one particle, on the first 10,000 training images of MNIST, which are
black or white by a threshold of 1/2. One VAE per seed, shared by all families. FID and KID of 2,000 means of p(x
given z) and as many means of reconstructions are measured against test images in the features of a classifier of the
training images. The log-likelihood is that of 200 test images by importance sampling with 50 particles, with the
fitted density as the prior; a second VAE has no density.
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
from pyro_vae.evaluation.samples.features import train_classifier
from pyro_vae.evaluation.samples.set_metrics import frechet_distance, kernel_distance

SHAPE, LATENT, NUM_SAMPLES = (28, 28), 12, 2000
NET = functools.partial(pv.nets.MLP, hidden=(300, 300))
SMALL = functools.partial(pv.nets.MLP, hidden=(128, 128))
ADAM = functools.partial(torch.optim.Adam, lr=1e-3)


def second_vae() -> pv.VAE:
    """Return a VAE of the latents whose noise has a learned std."""
    return pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.Normal(LATENT, (LATENT,), net=SMALL, scale=pv.scales.Shared()),
        posterior=pv.posteriors.MeanFieldNormal((LATENT,), LATENT, net=SMALL),
    )


FAMILIES = {
    "prior": None,
    "mixture of 20 normals": lambda: 20,
    "MAF": lambda: pv.priors.MaskedAutoregressiveFlow(LATENT, hidden=(128, 128)),
    "spline flow": lambda: pv.priors.NeuralSplineFlow(LATENT, net=SMALL),
    "second VAE": second_vae,
    "flow matching": lambda: pv.priors.FlowMatching(LATENT, net=SMALL),
}


def run(seed: int, args: argparse.Namespace, results: Results) -> None:
    """Train one VAE, fit every family to its latents, and measure all of them."""
    torch.manual_seed(seed)
    data = pv.data.load("mnist")
    train, test = (split.x.gt(0.5).float() for split in (data.train, data.test))
    train = train[: args.rows]
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.Bernoulli(LATENT, SHAPE, net=NET),
        posterior=pv.posteriors.MeanFieldNormal(SHAPE, LATENT, net=NET),
    )
    options: dict[str, Any] = {"optimizer": ADAM, "batch_size": 200, "seed": seed, "progress": False}
    start = time.process_time()
    pv.fit(vae, train, epochs=args.epochs, **options)
    seconds = time.process_time() - start
    net = train_classifier(train, data.train.y[: args.rows].long(), seed=0, tick=lambda: None)
    real = net.features(test[:NUM_SAMPLES])
    pictures = {"test images": test[:12]}

    def distances(x: torch.Tensor) -> dict[str, float]:
        features = net.features(x.reshape(-1, *SHAPE))
        return {"FID": frechet_distance(real, features), "KID": kernel_distance(real, features)}

    key = {"seed": seed, "rows": args.rows, "epochs": args.epochs, "fit_epochs": args.fit_epochs}
    rebuilt = pv.tasks.reconstruct(vae, test[:NUM_SAMPLES], progress=False)
    results.add({**key, "family": "reconstructions", **distances(rebuilt)})
    for name, make in FAMILIES.items():
        start, fitted = time.process_time(), None
        if make is not None:
            family = make()
            training = {"seed": seed, "progress": False} if isinstance(family, int) else options
            epochs = {} if isinstance(family, int) else {"epochs": args.fit_epochs}
            fitted = pv.tasks.AggregatePosterior(vae, train, family, **training, **epochs)
            seconds = time.process_time() - start
        x = pv.tasks.generate(vae, NUM_SAMPLES, prior=fitted, mean=True, seed=seed)
        row = {**key, "family": name, **distances(x), "seconds": round(seconds, 1)}
        if name != "second VAE":
            program = pv.VAE(prior=fitted or vae.prior, likelihood=vae.likelihood, posterior=vae.posterior)
            found = pv.evaluation.log_likelihood(program, test[:200], num_particles=50, seed=seed, progress=False)
            row["log_likelihood"] = found.mean
        results.add(row)
        pictures[name] = x[:12]
    if args.figure:
        pv.plots.image_rows(pictures).savefig(args.figure)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown; differences from the prior are paired by seed."""
    before = {row["seed"]: row for row in rows if row["family"] == "prior"}
    names = list(dict.fromkeys(row["family"] for row in rows))
    lines = ["| family | FID | to the prior | KID | to the prior | log-likelihood | to the prior | CPU seconds |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name in names:
        mine = [row for row in rows if row["family"] == name]
        cells = []
        for column, digits in (("FID", 2), ("KID", 3), ("log_likelihood", 2)):
            values = [row.get(column) for row in mine]
            gains = [None if v is None else v - before[r["seed"]][column] for v, r in zip(values, mine, strict=True)]
            cells += [cell(values, digits), "" if name == "prior" else cell(gains, digits)]
        lines.append(f"| {name} | {' | '.join(cells)} | {cell([row.get('seconds') for row in mine], 0)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fit-epochs", type=int, default=20)
    parser.add_argument("--figure", help="file for samples of all families")
    default = Path(__file__).parent / "results" / "aggregate_posterior.jsonl"
    parser.add_argument("--results", type=Path, default=default)
    args = parser.parse_args()
    results = Results(args.results, rows=args.rows, epochs=args.epochs, fit_epochs=args.fit_epochs)
    for seed in args.seeds:
        if not results.has(seed=seed):
            run(seed, args, results)
    print(table(results.rows))


if __name__ == "__main__":
    main()
