"""Content and style on MNIST: a latent per digit class in addition to one per image, and a digit class never seen.

Run `python tests/benchmarks/multilevel_mnist.py`. The groups are the digits, as in Bouchacourt et al. (2018,
https://arxiv.org/abs/1705.08841). Training: the first 5,000 images of the digits 0 to 8, binarized once by a draw.
Test: the first 1,000 test images of these digits. The `VAE` and the `Multilevel` program have 8 latents per image and
MLPs with 200 hidden units; u has 8 latents. Adam 1e-3, batches of 100. The bounds are those of IWAE with 50 particles
per image, given a draw of u from q(u) of its digit. The accuracy is that of a logistic regression of the digit on the
posterior mean of z, fitted on the training images: low where z holds style alone.

New digit: `for_new_groups` learns the embedding of the digit 9 from 20 images, all else frozen; the bound of 200 test
images of the digit 9, and their bound with u of the digit that gives the highest one.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from reporting import Results, cell
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import pyro_vae as pv

NET = partial(pv.nets.MLP, hidden=(200,))
LATENT, SHAPE, NEW, SHOTS = 8, (28, 28), 9, 20
COLUMNS = ["bound", "accuracy from z", "new digit", "new digit, best known"]


def load(split: Any, num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the first images of a split, binarized once by a draw, and their digits."""
    x = torch.as_tensor(split.x[:num_images]).float().reshape(-1, *SHAPE)
    y = torch.as_tensor(split.y[:num_images])
    return torch.bernoulli(x, generator=torch.Generator().manual_seed(seed)), y


def build(name: str, num_examples: int) -> pv.VAE:
    """Build a program."""
    context = LATENT if name == "Multilevel" else 0
    parts = {
        "prior": pv.priors.StandardNormal(LATENT),
        "likelihood": pv.likelihoods.Bernoulli(LATENT, SHAPE, net=NET, context=context),
        "posterior": pv.posteriors.MeanFieldNormal(SHAPE, LATENT, net=NET, context=context),
    }
    if name == "VAE":
        return pv.VAE(**parts)
    return pv.programs.Multilevel(
        **parts,
        group_prior=pv.priors.StandardNormal(LATENT),
        group_posterior=pv.posteriors.MeanFieldNormal((16,), LATENT, net=partial(pv.nets.MLP, hidden=())),
        num_groups=NEW,
        num_examples=num_examples,
    )


def bound(program: pv.VAE, data: tuple[Tensor, ...]) -> float:
    """Return the mean bound of IWAE with 50 particles in nats per image, given a draw of u of each group."""
    torch.manual_seed(0)
    with torch.no_grad():
        u = program.infer_groups().sample() if len(data) > 1 else None
        values = []
        for x, *group in zip(*(column.split(100) for column in data), strict=True):
            context = [] if u is None else [u[group[0]]]
            q = program.posterior(x, *context)
            z = q.sample((50,))
            log_w = program.prior().log_prob(z) + program.likelihood(z, *context).log_prob(x) - q.log_prob(z)
            values.append(log_w.logsumexp(0) - torch.tensor(50.0).log())
    return float(torch.cat(values).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    path = Path(__file__).parent / "results" / "multilevel_mnist.jsonl"
    parser.add_argument("--results", type=Path, default=path)
    args = parser.parse_args()
    dataset = pv.data.load("mnist")
    (x, y), (test, digit) = load(dataset.train, 7000, 0), load(dataset.test, 3000, 1)
    train = (x[y < NEW][:5000], y[y < NEW][:5000])
    known = (test[digit < NEW][:1000], digit[digit < NEW][:1000])
    few, unseen = x[y == NEW][:SHOTS], test[digit == NEW][:200]
    results = Results(args.results, epochs=args.epochs)
    adam = partial(torch.optim.Adam, lr=1e-3)
    for seed in range(args.seeds):
        for name in ("VAE", "Multilevel"):
            if results.has(name=name, seed=seed):
                continue
            torch.manual_seed(seed)
            program, columns = build(name, len(train[0])), 1 if name == "VAE" else 2
            options = {"optimizer": adam, "batch_size": 100, "seed": seed, "progress": False}
            pv.fit(program, train[:columns], epochs=args.epochs, **options)
            with torch.no_grad():
                z = [program.encode(*data[:columns]).mean.numpy() for data in (train, known)]
            probe = LogisticRegression(max_iter=2000).fit(z[0], train[1])
            row = {"name": name, "seed": seed, "epochs": args.epochs, "bound": bound(program, known[:columns])}
            row["accuracy from z"] = float(probe.score(z[1], known[1]))
            if name == "VAE":
                row["new digit"] = bound(program, (unseen,))
            else:
                new = program.for_new_groups(1, SHOTS)
                few_options = {**options, "optimizer": partial(torch.optim.Adam, lr=0.05), "batch_size": SHOTS}
                pv.fit(new, (few, torch.zeros(SHOTS)), epochs=300, **few_options)
                row["new digit"] = bound(new, (unseen, torch.zeros(len(unseen), dtype=torch.long)))
                each = [bound(program, (unseen, torch.full((len(unseen),), g))) for g in range(NEW)]
                row["new digit, best known"] = max(each)
            results.add(row)
    print(f"| program | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name in ("VAE", "Multilevel"):
        rows = [row for row in results.rows if row["name"] == name]
        print(f"| {name} | {' | '.join(cell([row.get(c) for row in rows], 3) for c in COLUMNS)} |")


if __name__ == "__main__":
    main()
