"""Clusters of digits: a mixture VAE beside k-means and mixtures of normals, on pixels and on the latents of a VAE.

Run `PYRO_VAE_DATA=... python tests/benchmarks/clustering.py`. All 1,797 digits of 8 x 8 pixels, and the first 10,000
images of MNIST; as many clusters as classes, found without labels and scored on the same data: accuracy under the best
one-to-one match, normalised mutual information, adjusted Rand index. Mean and standard deviation over 5 seeds, each
the only run of its seed.

A VAE of 10 latents (one hidden layer of 256, SiLU, the cross-entropy of grey pixels as in VaDE, batch 100, Adam 1e-3)
is trained for half of the epochs. From there one copy goes on as it is, and its posterior means are clustered ("VAE");
another goes on as a MixtureVAE from the clusters that a mixture of normals finds (`init_clusters`), with cluster
probabilities in closed form (`Responsibilities`). Methods of scikit-learn with one start a seed, normals with diagonal
covariance. 120 epochs of the digits, 30 of MNIST (`--epochs` for others); the published 94.5% of VaDE is the best run
of 3,000 epochs of 70,000 images, the 53.7% of a mixture on pixels from the same paper (Jiang et al., 2017).

Budget: some 6 minutes of one core for all seeds.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from reporting import Results
from torch import Tensor

import pyro_vae as pv

CLUSTERS, LATENT, BATCH, RATE, IMAGES = 10, 10, 100, 1e-3, 10_000
NET = functools.partial(pv.nets.MLP, hidden=(256,))
EPOCHS = {"digits": 120, "mnist": 30}
SCORES = ("accuracy", "nmi", "ari")


def load(name: str) -> tuple[Tensor, Tensor]:
    """Return images and class numbers."""
    data = pv.data.load(name)
    x, y = (torch.cat([getattr(split, key) for split in data.splits]) for key in ("x", "y"))
    return x[:IMAGES], y[:IMAGES]


def train(program: pv.Program, x: Tensor, epochs: int, seed: int) -> None:
    """Train a program."""
    optimizer = functools.partial(torch.optim.Adam, lr=RATE)
    pv.fit(program, x, optimizer=optimizer, epochs=epochs, batch_size=BATCH, seed=seed, progress=False)


def mixture(vae: pv.VAE) -> pv.programs.MixtureVAE:
    """Return a mixture with the networks of a VAE."""
    parts = {
        "classes": pv.priors.OneHotCategorical(CLUSTERS, learned=True),
        "prior": pv.priors.ConditionalNormal(LATENT, context=CLUSTERS, net=functools.partial(pv.nets.MLP, hidden=())),
        "posterior": vae.posterior,
    }
    return pv.programs.MixtureVAE(**parts, likelihood=vae.likelihood, classifier=pv.programs.Responsibilities(**parts))


def baselines(rows: Tensor, y: Tensor, seed: int) -> dict[str, dict[str, float]]:
    """Return the scores of the methods of scikit-learn."""
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    methods = {
        "k-means": KMeans(CLUSTERS, n_init=1, random_state=seed),
        "mixture of normals": GaussianMixture(CLUSTERS, covariance_type="diag", reg_covar=1e-3, random_state=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a mixture that ends before it converges
        found = {name: method.fit_predict(rows.flatten(1).double().numpy()) for name, method in methods.items()}
    return {name: pv.evaluation.clustering_scores(y.numpy(), each) for name, each in found.items()}


def measure(x: Tensor, y: Tensor, epochs: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the scores of each method."""
    torch.manual_seed(seed)
    shape = x.shape[1:]
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.Bernoulli(LATENT, shape, net=NET, grey=True),
        posterior=pv.posteriors.MeanFieldNormal(shape, LATENT, net=NET),
    )
    train(vae, x, epochs // 2, seed)
    program = mixture(copy.deepcopy(vae))
    train(vae, x, epochs - epochs // 2, seed + 1000)
    pv.tasks.init_clusters(program, x, seed=seed)
    train(program, x, epochs - epochs // 2, seed + 1000)
    found = {f"{name}, pixels": scores for name, scores in baselines(x, y, seed).items()}
    latents = pv.tasks.embed(vae, x).mean
    found |= {f"{name}, VAE": scores for name, scores in baselines(latents, y, seed).items()}
    return {**found, "MixtureVAE": pv.tasks.cluster(program, x).scores(y)}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown: mean and standard deviation over seeds."""
    sets = dict.fromkeys(row["data"] for row in rows)
    heads = [f"{name}: {score}" for name in sets for score in SCORES]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for method in rows[0]["found"]:
        cells = [
            cell([row["found"][method][score] for row in rows if row["data"] == name])
            for name in sets
            for score in SCORES
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: list[float]) -> str:
    """Return mean and standard deviation in percent."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=EPOCHS, default=tuple(EPOCHS))
    parser.add_argument("--epochs", type=int, help="of the VAE and the mixture together")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path("runs/clustering.jsonl"))
    options = parser.parse_args()
    results = Results(options.results)
    kept = []
    for name in options.data:
        epochs = options.epochs or EPOCHS[name]
        x, y = load(name)
        for seed in range(options.seeds):
            key = {"data": name, "seed": seed, "epochs": epochs}
            if not results.has(**key):
                start = time.process_time()
                found = measure(x, y, epochs, seed)
                results.add({**key, "found": found, "seconds": round(time.process_time() - start, 1)})
            kept += [row for row in results.rows if all(row[k] == v for k, v in key.items())]
    print(f"percent, mean ± standard deviation over the seeds, torch {torch.__version__}")
    print(table(kept))


if __name__ == "__main__":
    main()
