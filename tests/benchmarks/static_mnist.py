"""Static MNIST at a small budget: a hand-written PyTorch VAE, this library with the same network and with its default.

Run `PYRO_VAE_DATA=... python tests/benchmarks/static_mnist.py`. 784-400-20-400-784 with ReLU, Bernoulli, batch 128,
Adam 1e-3, 30 epochs; then the mean test bound and the log-likelihood by importance sampling with 1,000 particles, both
over all 10,000 test images. One model per seed; the contenders take turns.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time

import torch
from torch import Tensor, nn

import pyro_vae as pv

LATENT, HIDDEN, BATCH, RATE = 20, 400, 128, 1e-3


class HandWritten(nn.Module):
    """A VAE written without a library."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 784))

    def loss(self, x: Tensor) -> Tensor:
        loc, log_var = self.encoder(x).chunk(2, -1)
        z = loc + torch.randn_like(loc) * (0.5 * log_var).exp()
        rec = nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        return rec - 0.5 * (1 + log_var - loc.square() - log_var.exp()).sum()

    def train_on(self, x: Tensor, epochs: int) -> None:
        optimizer = torch.optim.Adam(self.parameters(), lr=RATE, fused=True)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad(set_to_none=True)
                (self.loss(x[rows]) / len(rows)).backward()
                optimizer.step()

    @torch.no_grad()
    def evaluate(self, x: Tensor, particles: int) -> tuple[float, float]:
        bound = -sum(self.loss(rows).item() for rows in x.split(1000)) / len(x)
        total = 0.0
        for rows in x.split(2):
            loc, log_var = self.encoder(rows).chunk(2, -1)
            q = torch.distributions.Normal(loc, (0.5 * log_var).exp())
            z = q.sample((particles,))
            logits = self.decoder(z)
            log_px = -nn.functional.binary_cross_entropy_with_logits(
                logits, rows.expand_as(logits), reduction="none"
            ).sum(-1)
            prior = torch.distributions.Normal(0.0, 1.0)
            log_w = log_px + (prior.log_prob(z) - q.log_prob(z)).sum(-1)
            total += (log_w.logsumexp(0) - math.log(particles)).sum().item()
        return bound, total / len(x)


def hand_written(seed: int, data: pv.data.Dataset, epochs: int) -> HandWritten:
    torch.manual_seed(seed)
    model = HandWritten()
    model.train_on(data.train.x.flatten(1), epochs)
    return model


def library(net: object, seed: int, data: pv.data.Dataset, epochs: int) -> pv.VAE:
    torch.manual_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.Bernoulli(LATENT, (28, 28), net=net),
        posterior=pv.posteriors.MeanFieldNormal((28, 28), LATENT, net=net),
    )
    adam = functools.partial(torch.optim.Adam, lr=RATE)
    pv.fit(vae, data.train, optimizer=adam, epochs=epochs, batch_size=BATCH, seed=seed, progress=False)
    return vae


def evaluate(model: HandWritten | pv.VAE, x: Tensor, particles: int) -> tuple[float, float]:
    """Return mean bound and log-likelihood."""
    if isinstance(model, HandWritten):
        return model.evaluate(x.flatten(1), particles)
    elbo = pv.estimators.ELBO()
    with torch.no_grad():
        rows = [elbo.per_datum(model.model, model.guide, part) for part in x.split(1000)]
    return float(torch.cat(rows).mean()), pv.evaluation.log_likelihood(model, x, num_particles=particles).mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=1000)
    options = parser.parse_args()
    data = pv.data.load("mnist_static")
    contenders = {
        "hand-written PyTorch, 400": hand_written,
        "this library, 400": functools.partial(
            library, functools.partial(pv.nets.MLP, hidden=(HIDDEN,), activation=nn.ReLU)
        ),
        "this library, default network": functools.partial(library, pv.nets.MLP),
    }
    models, seconds = {}, {name: [] for name in contenders}
    for seed in range(options.seeds):
        for name, run in contenders.items():
            start = time.perf_counter()
            models[name, seed] = run(seed, data, options.epochs)
            seconds[name].append(time.perf_counter() - start)
            print(f"# seed {seed}, {name}: trained in {seconds[name][-1]:.1f} s", flush=True)
    found = {name: [] for name in contenders}
    for (name, seed), model in models.items():
        found[name].append(evaluate(model, data.test.x, options.particles))
        print(f"# seed {seed}, {name}: bound and log-likelihood {found[name][-1]}", flush=True)
    print(
        f"{options.epochs} epochs, {options.seeds} seeds, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(
        "| contender | test bound | test log-likelihood | training time, s | to hand-written |\n|---|---|---|---|---|"
    )
    for name, pairs in found.items():
        cells = []
        for column in zip(*pairs, strict=True):
            spread = statistics.stdev(column) if len(column) > 1 else math.nan
            cells.append(f"{statistics.mean(column):.2f} ± {spread:.2f}")
        # contenders take turns: on a busy machine the ratio within a turn is more precise than that of the sums
        ratios = [a / b for a, b in zip(seconds[name], seconds["hand-written PyTorch, 400"], strict=True)]
        cells += [f"{statistics.median(seconds[name]):.0f}", f"{statistics.median(ratios):.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
