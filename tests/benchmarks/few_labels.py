"""MNIST with 100, 600, 1000 and 3000 labels: M2 and M1+M2 compared with a supervised network and self-training.

Run `PYRO_VAE_DATA=... python tests/benchmarks/few_labels.py`. Data: the 50,000 training images, binarized once, with
all labels hidden but the given number (equally many of each class). Reported is the error on the 10,000 test images,
with the standard deviation over random choices of the labels. Networks with one hidden layer of 200, SiLU; 50 latents;
Adam 1e-3; batches of 100 with 20 labelled rows, alpha 1.0 * 100 / 20 (0.1 in the paper, for many more steps). Alpha
(0.1, 1, 10), labelled rows (2, 10, 20) and latents (8, 50) were tried on validation images of the first choice with
100 labels. M1 trains once per choice, without labels. M2 of M1+M2 then learns from its latents, sampled in each batch,
and classifies a test image by the mean over 64 samples. The supervised network has the shape of the classifier of M2,
weight decay 1e-2, and 1,000 steps of batches of 100 labelled images. Self-training is scikit-learn's
SelfTrainingClassifier (threshold 0.9, at most 5 rounds) with a perceptron of 200 on 50 principal components of 10,000
of the images, those with a label included. No setting was chosen on test images.

Budget: 2 passes over the data for M2 (`--epochs`), 8 for M1, 4 for M2 on its latents, 3 choices of labels: about 25
minutes on one core. The published figures have up to 3,000 passes and larger networks (Kingma et al., 2014; Pyro's
example); they show how much there is to gain. M2 needs many passes: at this budget its unlabelled images do not help.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from reporting import Results
from torch import Tensor, nn
from torch.utils.data import DataLoader

import pyro_vae as pv
from pyro_vae.tasks import classify, hide_labels, labelled_batches

SHAPE, CLASSES, LATENT, BATCH, LABELLED = (28, 28), 10, 50, 100, 20
LABELS = (100, 600, 1000, 3000)
#: Weight of the classification of a labelled row, per row of a batch; 0.1 in the paper.
WEIGHT = 1.0
NET = functools.partial(pv.nets.MLP, hidden=(200,))
OPTIMIZER = functools.partial(torch.optim.Adam, lr=1e-3)
#: Errors in percent at these numbers of labels; for Pyro's example, one minus its accuracy.
PUBLISHED = {
    "M2 (Kingma et al., 2014)": (11.97, 4.94, 3.60, 3.92),
    "M1+M2 (Kingma et al., 2014)": (3.33, 2.59, 2.40, 2.18),
    "M2 in Pyro's example": (6.81, 5.63, 5.13, 4.18),
    "perceptron in Pyro's example": (22.88, 12.84, 11.37, 8.92),
}


class Draw:
    """One random choice of labels, with the data for all methods, and M1, which is trained once."""

    def __init__(self, data: pv.data.Dataset, seed: int, epochs: int) -> None:
        self.x, self.numbers, self.test = data.train.x, data.train.y, data.test
        self.seed, self.epochs = seed, epochs

    def labels(self, n: int) -> Tensor:
        """Return the labels with all but n hidden."""
        return hide_labels(self.numbers, n, seed=self.seed)

    def fit(self, program: pv.Program, data: object, epochs: int) -> None:
        """Train a program."""
        pv.fit(program, data, optimizer=OPTIMIZER, epochs=epochs, batch_size=BATCH, seed=self.seed, progress=False)

    @functools.cached_property
    def m1(self) -> pv.VAE:
        """Return a VAE of all images, trained without labels."""
        torch.manual_seed(self.seed)
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(LATENT),
            likelihood=pv.likelihoods.Bernoulli(LATENT, SHAPE, net=NET),
            posterior=pv.posteriors.MeanFieldNormal(SHAPE, LATENT, net=NET),
        )
        self.fit(vae, self.x, 4 * self.epochs)
        return vae


def m2(shape: tuple[int, ...], likelihood: pv.Conditional) -> pv.programs.SemiSupervised:
    """Return M2 for rows of a shape."""
    return pv.programs.SemiSupervised(
        classes=pv.priors.OneHotCategorical(CLASSES),
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=likelihood,
        classifier=pv.posteriors.OneHotCategorical(shape, CLASSES, net=NET),
        posterior=pv.posteriors.MeanFieldNormal(shape, LATENT, net=NET, context=CLASSES),
        alpha=WEIGHT * BATCH / LABELLED,
    )


def plain(draw: Draw, n: int) -> float:
    """Return the error of M2 on pixels."""
    torch.manual_seed(draw.seed)
    program = m2(SHAPE, pv.likelihoods.Bernoulli(LATENT, SHAPE, net=NET, context=CLASSES))
    draw.fit(program, labelled_batches(draw.x, draw.labels(n), batch_size=BATCH, num_labelled=LABELLED), draw.epochs)
    return classify(program, draw.test.x, draw.test.y).error


def stacked(draw: Draw, n: int) -> float:
    """Return the error of M2 on the latents of M1."""
    q = draw.m1.encode(draw.x).base_dist
    latents = torch.stack([q.mean, q.stddev], 1).detach()
    torch.manual_seed(draw.seed)
    scale = pv.scales.PerExample()
    top = m2((LATENT,), pv.likelihoods.Normal(LATENT, (LATENT,), net=NET, context=CLASSES, scale=scale))
    loader = labelled_batches(latents, draw.labels(n), batch_size=BATCH, num_labelled=LABELLED)
    latents = DataLoader(loader.dataset, sampler=loader.sampler, batch_size=None, collate_fn=drawn)
    draw.fit(top, latents, 2 * draw.epochs)
    both = pv.programs.StackedSemiSupervised(top=top, likelihood=draw.m1.likelihood, posterior=draw.m1.posterior)
    return classify(both, draw.test.x, draw.test.y).error


def drawn(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return a sample of the latents of a batch, and its labels."""
    mean, deviation = batch[0].unbind(1)
    return mean + deviation * torch.randn_like(mean), batch[1]


def supervised(draw: Draw, n: int) -> float:
    """Return the error of a network trained on the labelled images alone."""
    torch.manual_seed(draw.seed)
    y = draw.labels(n)
    known = ~y.isnan().any(1)
    x, y = draw.x[known], draw.numbers[known]
    net = NET(SHAPE, (CLASSES,))
    adam = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    for _ in range(1000):
        rows = torch.randint(n, (100,))
        adam.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        adam.step()
    with torch.no_grad():
        return float((net(draw.test.x).argmax(1) != draw.test.y).double().mean())


def self_training(draw: Draw, n: int) -> float:
    """Return the error of scikit-learn's self-training."""
    from sklearn.decomposition import PCA
    from sklearn.neural_network import MLPClassifier
    from sklearn.semi_supervised import SelfTrainingClassifier

    y = draw.labels(n)
    known = ~y.isnan().any(1)
    rows = torch.cat([known.nonzero()[:, 0], (~known).nonzero()[: 10_000 - n, 0]])
    targets = torch.where(known, draw.numbers, -1)[rows].numpy()
    pca = PCA(50, random_state=draw.seed).fit(draw.x[rows].flatten(1).numpy())
    base = MLPClassifier((200,), alpha=1e-2, max_iter=30, random_state=draw.seed)
    method = SelfTrainingClassifier(base, threshold=0.9, max_iter=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rounds stop before they converge
        method.fit(pca.transform(draw.x[rows].flatten(1).numpy()), targets)
    return 1 - float(method.score(pca.transform(draw.test.x.flatten(1).numpy()), draw.test.y.numpy()))


METHODS: dict[str, Callable[[Draw, int], float]] = {
    "M2": plain,
    "M1+M2": stacked,
    "supervised network": supervised,
    "self-training": self_training,
}


def table(results: Results) -> str:
    """Return the table in Markdown: errors in percent, mean and standard deviation over choices of labels."""
    lines = [f"| labels | {' | '.join(map(str, LABELS))} | CPU s |", "|---" * (len(LABELS) + 2) + "|"]
    for name in METHODS:
        rows = [row for row in results.rows if row["method"] == name]
        cells = [cell([100 * row["error"] for row in rows if row["labels"] == n]) for n in LABELS]
        seconds = statistics.mean(row["seconds"] for row in rows) if rows else 0.0
        lines.append(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |")
    for name, errors in PUBLISHED.items():
        lines.append(f"| published: {name} | {' | '.join(map(str, errors))} | |")
    return "\n".join(lines)


def cell(errors: list[float]) -> str:
    """Return mean and standard deviation."""
    if len(errors) < 2:
        return "".join(f"{e:.2f}" for e in errors)
    return f"{statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=2, help="passes over the data for M2; M1 takes four times as many"
    )
    parser.add_argument("--draws", type=int, default=3, help="of labels")
    parser.add_argument("--results", type=Path, default=Path("runs/few_labels.jsonl"))
    options = parser.parse_args()
    data = pv.data.load("mnist", binarize="static")
    results = Results(options.results, epochs=options.epochs)
    for seed in range(options.draws):
        draw = Draw(data, seed, options.epochs)
        for n in LABELS:
            for name, method in METHODS.items():
                if not results.has(method=name, labels=n, seed=seed):
                    start = time.process_time()
                    error = method(draw, n)
                    seconds = round(time.process_time() - start, 1)
                    row = {"method": name, "labels": n, "seed": seed, "epochs": options.epochs}
                    results.add({**row, "error": error, "seconds": seconds})
    print(f"test error in percent, mean ± standard deviation over choices of labels, torch {torch.__version__}")
    print(table(results))


if __name__ == "__main__":
    main()
