"""Anomaly detection: AUROC and average precision of seven scores on two pairs of image sets and three tables.

Run `PYRO_VAE_DATA=... python tests/benchmarks/anomaly.py`. Images: the VAE learns from 20,000 images of Fashion-MNIST
(or MNIST). The test set has 500 test images of the same set and 500 of the other one, which are the anomalies;
likelihood regret uses the first 100 of each. Pixels are discretized logistic with 256 grey levels; 20 latents, one
hidden layer of 256, 5 epochs. The plain likelihood is known to fail from Fashion-MNIST to MNIST (Nalisnick et al.,
2019): an area below 0.5 means that the other set looks more normal.

Tables, standardised by the training rows: breast cancer (malignant; rows with missing values removed), white wine
(quality of 4 or less) and abalone (4 rings or fewer; without the sex). The VAE learns from half of the normal rows.
The test set has the other half and enough rows of the rare class for a tenth of it, or all of them. 3 latents, two
hidden layers of 64, normal likelihood with one learned scale, 1,500 steps.

Baselines on the same rows: the squared error of a PCA reconstruction (20 components for images, 3 for tables), and
IsolationForest and LocalOutlierFactor (20 neighbours) of scikit-learn, fitted to 5,000 of the images. Adam 1e-3,
batch 128, 3 seeds of rows and networks; no setting was chosen on an anomaly.

Budget: about 8 minutes on one core for all seeds.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import Results, cell
from torch import Tensor

import pyro_vae as pv
from pyro_vae.tasks import (
    ImportanceWeighted,
    InputComplexity,
    LikelihoodRegret,
    NegativeBound,
    Reconstruction,
    Score,
    Typicality,
)

BATCH, RATE = 128, 1e-3
IMAGES = {
    "Fashion-MNIST, anomalies MNIST": ("fashion_mnist", "mnist"),
    "MNIST, anomalies Fashion-MNIST": ("mnist", "fashion_mnist"),
}
TABLES = ("breast cancer", "white wine", "abalone")
#: Training images, training images of the baselines, test images of each kind, and those for likelihood regret.
TRAIN, FEW, TEST, REGRET = 20_000, 5000, 500, 100


@dataclass(frozen=True)
class Task:
    """Normal training rows, test rows, and which test rows are anomalies."""

    train: Tensor
    test: Tensor
    odd: Tensor

    @property
    def image(self) -> bool:
        """Whether the rows are images."""
        return self.train.dim() == 3

    def some(self) -> tuple[Tensor, Tensor]:
        """Return the test rows for likelihood regret, and which are anomalies."""
        if not self.image:
            return self.test, self.odd
        rows = torch.cat([kind.nonzero()[:REGRET, 0] for kind in (~self.odd, self.odd)])
        return self.test[rows], self.odd[rows]


def images(inside: str, outside: str, seed: int) -> Task:
    """Return images of one set, and test images of both."""
    g = torch.Generator().manual_seed(seed)
    data, other = pv.data.load(inside), pv.data.load(outside)
    train = data.train.x[torch.randperm(len(data.train), generator=g)[:TRAIN]]
    kinds = [split.x[torch.randperm(len(split), generator=g)[:TEST]] for split in (data.test, other.test)]
    return Task(train, torch.cat(kinds), torch.arange(2 * TEST) >= TEST)


def labelled(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of a table without missing values, and which rows belong to the rare class."""
    from sklearn import datasets

    root = Path(os.environ["PYRO_VAE_DATA"])
    if name == "breast cancer":
        path = root / "uci_breast_cancer_wisconsin" / "breast-cancer-wisconsin.data"
        rows = np.genfromtxt(path, delimiter=",", missing_values="?")
        rows = rows[~np.isnan(rows).any(1)]
        return rows[:, 1:-1], rows[:, -1] == 4
    if name in ("red wine", "white wine"):
        path = root / "uci_wine_quality" / f"winequality-{name.split()[0]}.csv"
        rows = np.genfromtxt(path, delimiter=";", skip_header=1)
        return rows[:, :-1], rows[:, -1] <= 4
    if name == "abalone":
        rows = np.genfromtxt(root / "uci_abalone" / "abalone.data", delimiter=",")[:, 1:]
        return rows[:, :-1], rows[:, -1] <= 4
    if name == "digits":
        x, y = datasets.load_digits(return_X_y=True)
        return x, y == 0
    x, y = datasets.load_diabetes(return_X_y=True)
    return x, y >= np.quantile(y, 0.9)


def table(name: str, seed: int) -> Task:
    """Return half of the normal rows for training; the other half and the rare class for testing."""
    x, odd = labelled(name)
    rng = np.random.default_rng(seed)
    order, rare = (rng.permutation(np.flatnonzero(rows)) for rows in (~odd, odd))
    half = len(order) // 2
    test = np.concatenate([order[half:], rare[: half // 9]])
    mean, deviation = x[order[:half]].mean(0), x[order[:half]].std(0)
    x = torch.as_tensor((x - mean) / deviation).float()
    return Task(x[order[:half]], x[test], torch.as_tensor(odd[test]))


def train(task: Task, seed: int) -> pv.VAE:
    """Return a VAE trained on the normal rows."""
    torch.manual_seed(seed)
    shape = task.train.shape[1:]
    if task.image:
        net, latent, steps = functools.partial(pv.nets.MLP, hidden=(256,)), 20, 5 * TRAIN // BATCH
        likelihood = pv.likelihoods.DiscretizedLogistic(latent, shape, net=net)
    else:
        net, latent, steps = functools.partial(pv.nets.MLP, hidden=(64, 64)), 3, 1500
        likelihood = pv.likelihoods.Normal(latent, shape, net=net, scale=pv.scales.Shared())
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=likelihood,
        posterior=pv.posteriors.MeanFieldNormal(shape, latent, net=net),
    )
    pv.fit(
        vae,
        task.train,
        optimizer=functools.partial(torch.optim.Adam, lr=RATE),
        epochs=max(1, steps * BATCH // len(task.train)),
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
    return vae


def scores(task: Task) -> dict[str, Score]:
    """Return the scores by name."""
    likelihood = ImportanceWeighted(100)
    found: dict[str, Score] = {
        "minus the bound": NegativeBound(),
        "minus log-likelihood": likelihood,
        "reconstruction": Reconstruction(),
        "typicality of the bound": Typicality(NegativeBound(), task.train[:1000]),
        "likelihood regret": LikelihoodRegret(num_steps=50, num_particles=4),
    }
    return {**found, "minus input complexity": InputComplexity(likelihood)} if task.image else found


def baselines(task: Task, seed: int) -> dict[str, np.ndarray]:
    """Return the scores of other methods."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import LocalOutlierFactor

    x, test = task.train[:FEW].flatten(1).numpy(), task.test.flatten(1).numpy()
    pca = PCA(20 if task.image else 3, random_state=seed).fit(x)
    return {
        "PCA reconstruction": ((test - pca.inverse_transform(pca.transform(test))) ** 2).sum(1),
        "IsolationForest": -IsolationForest(random_state=seed).fit(x).score_samples(test),
        "LocalOutlierFactor": -LocalOutlierFactor(novelty=True).fit(x).score_samples(test),
    }


def measure(task: Task, seed: int) -> dict[str, Any]:
    """Return AUROC and average precision of each method."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    start = time.process_time()
    vae = train(task, seed)
    found = {}
    for name, score in scores(task).items():
        x, odd = task.some() if name == "likelihood regret" else (task.test, task.odd)
        found[name] = odd.numpy(), score(vae, x, seed=seed).numpy()
    found |= {name: (task.odd.numpy(), values) for name, values in baselines(task, seed).items()}
    return {
        "odd": float(task.odd.double().mean()),
        "AUROC": {name: float(roc_auc_score(*pair)) for name, pair in found.items()},
        "AP": {name: float(average_precision_score(*pair)) for name, pair in found.items()},
        "seconds": round(time.process_time() - start, 1),
    }


def markdown(rows: list[dict[str, Any]], kind: str) -> str:
    """Return a Markdown table of AUROC or average precision: mean and standard error over seeds."""
    sets = {row["set"]: [r for r in rows if r["set"] == row["set"]] for row in rows}
    names = dict.fromkeys(name for row in rows for name in row[kind])
    lines = [f"| {kind} | {' | '.join(sets)} |", "|---" * (len(sets) + 1) + "|"]
    for name in names:
        cells = [cell([row[kind].get(name) for row in mine], 3) for mine in sets.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    shares = [f"{mine[0]['odd']:.0%}" for mine in sets.values()]
    return "\n".join([*lines, f"| fraction of anomalies | {' | '.join(shares)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=(*IMAGES, *TABLES), default=(*IMAGES, *TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("runs/anomaly.jsonl"))
    options = parser.parse_args()
    results = Results(options.results)
    for seed in range(options.seeds):
        for name in options.sets:
            if not results.has(set=name, seed=seed):
                task = images(*IMAGES[name], seed) if name in IMAGES else table(name, seed)
                results.add({"set": name, "seed": seed, **measure(task, seed)})
    print(f"area under the curve, mean ± standard error over the seeds, torch {torch.__version__}\n")
    print(markdown(results.rows, "AUROC") + "\n\n" + markdown(results.rows, "AP"))


if __name__ == "__main__":
    main()
