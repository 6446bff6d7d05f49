"""Frey faces: likelihoods for 256 grey levels with the same networks, budget and seeds, in bits per dimension.

Run `PYRO_VAE_DATA=... python tests/benchmarks/frey_faces.py`. Encoder 560-300-20, decoder 20-300-64-560 (times the
outputs per pixel of the likelihood) with SiLU; the encoder sees standardised pixels. Mean-field normal posterior,
standard normal prior, batch 25, Adam 2e-3, the ELBO with one particle. Batch size, learning rate and standardisation
were chosen on the validation split with DiscretizedLogistic; the last weights are used, and no row was tuned. 30
epochs, but 6 for Categorical, which then takes about as long as the mixture.

All figures are comparable: each is minus the base-2 logarithm of a probability of the test images, which have 560
pixels with 256 levels k, divided by 560. Discrete likelihoods see k / 255 and have that probability. Densities see
(k + u) / 256 with u uniform, sampled in each epoch and once for the test images, and give a bound on it (Theis et al.,
2016, https://arxiv.org/abs/1511.01844): the mean over u of log p((k + u) / 256) minus 560 log 256. "Bound" uses the
ELBO for log p, "importance sampling" its estimate with `--particles` samples; both are lower bounds. One row is
trained on (k + 1/2) / 256 instead, which lets a density grow without bound; it is evaluated like the others.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from reporting import Results, cell
from torch import Tensor, nn

import pyro_vae as pv

SHAPE, LEVELS, LATENT, BATCH, RATE = (28, 20), 256, 20, 25, 2e-3
DECODER = functools.partial(pv.nets.MLP, hidden=(300, 64))


class Encoder(nn.Module):
    """A network with standardised input: pixels of mean 0 and variance 1, approximately."""

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net = pv.nets.MLP(in_shape, out_shape, hidden=(300,))

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - 0.6) / 0.2)


def levels(x: Tensor) -> Tensor:
    """Return k / 255 for (k + 1/2) / 256, the values of the loaded faces."""
    return (x * LEVELS - 0.5).round() / (LEVELS - 1)


def dequantise(x: Tensor) -> Tensor:
    """Return (k + u) / 256 for (k + 1/2) / 256."""
    return x + (torch.rand_like(x) - 0.5) / LEVELS


def centres(x: Tensor) -> Tensor:
    """Return (k + 1/2) / 256 unchanged."""
    return x


@dataclass(frozen=True)
class Contender:
    """A likelihood and the transform of its training images."""

    make: Callable[..., pv.Conditional]
    sees: Callable[[Tensor], Tensor] = dequantise
    epochs: int = 30


L = pv.likelihoods
CONTENDERS = {
    "Normal, one sigma": Contender(lambda *args, **kw: L.Normal(*args, scale=pv.scales.Shared(0.1), **kw)),
    "Normal, OptimalSigma": Contender(lambda *args, **kw: L.Normal(*args, scale=pv.scales.OptimalSigma(0.1), **kw)),
    "Normal, PerExample": Contender(lambda *args, **kw: L.Normal(*args, scale=pv.scales.PerExample(), **kw)),
    "Normal, PerExample, without noise": Contender(
        lambda *args, **kw: L.Normal(*args, scale=pv.scales.PerExample(), **kw), centres
    ),
    "Logistic, PerExample": Contender(lambda *args, **kw: L.Logistic(*args, scale=pv.scales.PerExample(), **kw)),
    "ContinuousBernoulli": Contender(L.ContinuousBernoulli),
    "DiscretizedLogistic": Contender(L.DiscretizedLogistic, levels),
    "DiscretizedLogisticMixture(5)": Contender(L.DiscretizedLogisticMixture, levels),
    "Categorical(256)": Contender(L.Categorical, levels, epochs=6),
}


def bits(nats: float, *, density: bool) -> float:
    """Return bits per dimension of 256 levels from nats per image.

    Example:
        >>> round(bits(-560 * math.log(256), density=False), 6), bits(0.0, density=True)
        (8.0, 8.0)
    """
    return -nats / (math.prod(SHAPE) * math.log(2)) + (math.log2(LEVELS) if density else 0.0)


def run(name: str, seed: int, data: pv.data.Dataset, particles: int) -> dict[str, Any]:
    """Train and evaluate one model."""
    torch.manual_seed(seed)
    contender = CONTENDERS[name]
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=contender.make(LATENT, SHAPE, net=DECODER),
        posterior=pv.posteriors.MeanFieldNormal(SHAPE, LATENT, net=Encoder),
    )
    adam = functools.partial(torch.optim.Adam, lr=RATE)
    train = replace(data.train, transform=contender.sees)
    start = time.process_time()
    pv.fit(vae, train, optimizer=adam, epochs=contender.epochs, batch_size=BATCH, seed=seed, progress=False)
    seconds = time.process_time() - start
    density = contender.sees is not levels
    torch.manual_seed(0)
    x = dequantise(data.test.x) if density else levels(data.test.x)
    elbo = pv.estimators.ELBO()
    with torch.no_grad():
        bound = torch.cat([elbo.per_datum(vae.model, vae.guide, part) for part in x.split(50)])
    found = pv.evaluation.log_likelihood(vae, x, num_particles=particles)
    return {
        "likelihood": name,
        "seed": seed,
        "particles": particles,
        "epochs": contender.epochs,
        "bound": bits(float(bound.mean()), density=density),
        "importance_sampling": bits(found.mean, density=density),
        "seconds": round(seconds, 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| likelihood | trained on | epochs | seeds | bound | importance sampling | CPU seconds of training |",
        "|---|---|---|---|---|---|---|",
    ]
    forms = {levels: "k / 255", dequantise: "(k + u) / 256", centres: "(k + 1/2) / 256"}
    for name, contender in CONTENDERS.items():
        mine = [row for row in rows if (row["likelihood"], row["epochs"]) == (name, contender.epochs)]
        if mine:
            found = [cell([row[key] for row in mine]) for key in ("bound", "importance_sampling")]
            seconds = statistics.median(row["seconds"] for row in mine)
            start = f"| {name} | {forms[contender.sees]} | {contender.epochs} | {len(mine)}"
            lines.append(f"{start} | {' | '.join(found)} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=100)
    parser.add_argument("--results", type=Path, default=Path("runs/frey_faces.jsonl"))
    options = parser.parse_args()
    data = pv.data.load("freyfaces")
    results = Results(options.results, particles=options.particles)
    for seed in range(options.seeds):
        for name, contender in CONTENDERS.items():
            if not results.has(likelihood=name, seed=seed, epochs=contender.epochs):
                results.add(run(name, seed, data, options.particles))
    print(f"importance sampling with {options.particles} particles, torch {torch.__version__}")
    print(table(results.rows))


if __name__ == "__main__":
    main()
