"""Networks for images at equal time: static MNIST and Fashion-MNIST, perceptrons, convolutions and residual networks.

Run `PYRO_VAE_DATA=... python tests/benchmarks/networks.py`. Each network trains for the same time, measured as CPU
time of the process on one thread, so that other processes on the machine do not count; the weights are those with the
best validation bound. 20 latents, MeanFieldNormal, Bernoulli (static MNIST) or ContinuousBernoulli (Fashion-MNIST),
Adam 1e-3, batches of 128. Reported are the log-likelihood by importance sampling of evenly spaced test images, and the
number of epochs. The rows are in `results/networks.jsonl`; a second run measures only what is missing, and
`--seconds 1800 --seeds 3` is a longer run.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import torch
from reporting import Results, cell
from torch import Tensor

import pyro_vae as pv
from pyro_vae import nets

LATENT, BATCH, RATE = 20, 128, 1e-3
FILE = Path(__file__).parent / "results" / "networks.jsonl"
DATA = {"mnist_static": pv.likelihoods.Bernoulli, "fashion_mnist": pv.likelihoods.ContinuousBernoulli}
#: Encoder and decoder.
NETWORKS = {
    "MLP": (nets.MLP, nets.MLP),
    "ConvEncoder, ConvDecoder": (nets.ConvEncoder, nets.ConvDecoder),
    "ResNetEncoder, ResNetDecoder": (nets.ResNetEncoder, nets.ResNetDecoder),
}


class Budget(pv.training.Callback):
    """Stop after some CPU time, validation included, and restore the weights with the best validation bound."""

    def __init__(self, seconds: float, valid: Tensor) -> None:
        super().__init__(every=200)
        self.seconds, self.valid, self.steps = seconds, valid, 0
        self.best, self.weights = -float("inf"), {}

    def on_train_start(self, program: pv.Program, *, has_valid: bool) -> None:
        self.end = time.process_time() + self.seconds

    def on_step_end(self, program: pv.Program, metrics: dict[str, Any]) -> bool:
        self.steps = metrics["step"]
        with torch.no_grad():
            bound = float(pv.estimators.ELBO().per_datum(program.model, program.guide, self.valid).mean())
        if bound > self.best:
            self.best = bound
            self.weights = {name: value.clone() for name, value in program.state_dict().items()}
        return time.process_time() > self.end

    def on_train_end(self, program: pv.Program) -> None:
        program.load_state_dict(self.weights)


def spaced(split: Any, n: int) -> slice:
    """Return evenly spaced rows: the test images of static MNIST are sorted by class."""
    return slice(None, None, max(1, len(split) // n))


def measure(name: str, network: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one network and return its row."""
    data, (encoder, decoder) = pv.data.load(name), NETWORKS[network]
    torch.manual_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=DATA[name](LATENT, (28, 28), net=decoder),
        posterior=pv.posteriors.MeanFieldNormal((28, 28), LATENT, net=encoder),
    )
    budget = Budget(options.seconds, data.valid.batch(spaced(data.valid, options.rows)))
    pv.fit(
        vae,
        data.train,
        optimizer=functools.partial(torch.optim.Adam, lr=RATE),
        epochs=10**4,
        batch_size=BATCH,
        seed=seed,
        callbacks=[budget],
        progress=False,
    )
    rows = data.test[spaced(data.test, options.rows)]
    found = pv.evaluation.log_likelihood(vae, rows, num_particles=options.particles, progress=False)
    weights = sum(p.numel() for p in vae.parameters())
    row = {"data": name, "network": network, "seed": seed, "seconds": options.seconds, "particles": options.particles}
    return row | {
        "rows": options.rows,
        "log_likelihood": found.mean,
        "epochs": budget.steps * BATCH / len(data.train),
        "weights": weights,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of each training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--particles", type=int, default=50)
    parser.add_argument("--rows", type=int, default=500, help="validation and test images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(FILE, seconds=options.seconds, particles=options.particles, rows=options.rows)
    for seed in range(options.seeds):
        for name in DATA:
            for network in NETWORKS:
                if not results.has(data=name, network=network, seed=seed):
                    results.add(measure(name, network, seed, options))
    heads = [f"{name}: log-likelihood, nats | epochs" for name in DATA]
    print(f"\n{options.seconds:.0f} s of CPU time, {options.seeds} seeds, torch {torch.__version__}\n")
    print(f"| encoder, decoder | weights | {' | '.join(heads)} |\n|---|---|{'---|---|' * len(DATA)}")
    for network in NETWORKS:
        cells = []
        for name in DATA:
            rows = [r for r in results.rows if r["network"] == network and r["data"] == name]
            cells += [cell([r["log_likelihood"] for r in rows]), cell([r["epochs"] for r in rows], 1)]
        print(f"| {network} | {rows[0]['weights']:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
