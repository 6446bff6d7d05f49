"""What one training step costs: this library, hand-written PyTorch and stock Pyro, in one process and in turn.

Run `python tests/benchmarks/step_time.py`. Each row is the minimum over rounds of the mean of a block of steps, as
other work on the machine only ever adds time; the ratios are what to quote.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

import pyro_vae as pv

WORK = {
    "W1: 784-400-20-400-784, batch 128": (784, 400, 20, 128),
    "W2: 64-128-8-128-64, batch 64": (64, 128, 8, 64),
}


def networks(features: int, hidden: int, latent: int) -> tuple[nn.Module, nn.Module]:
    encoder = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, features))
    return encoder, decoder


def hand_written(features: int, hidden: int, latent: int) -> Callable[[Tensor], object]:
    encoder, decoder = networks(features, hidden, latent)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True)

    def step(x: Tensor) -> None:
        loc, log_var = encoder(x).chunk(2, -1)
        z = loc + torch.randn_like(loc) * (0.5 * log_var).exp()
        rec = nn.functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        kl = -0.5 * (1 + log_var - loc.square() - log_var.exp()).sum()
        optimizer.zero_grad(set_to_none=True)
        ((rec + kl) / len(x)).backward()
        optimizer.step()

    return step


def library(features: int, hidden: int, latent: int) -> Callable[[Tensor], object]:
    net = functools.partial(pv.nets.MLP, hidden=(hidden,), activation=nn.ReLU)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=pv.likelihoods.Bernoulli(latent, (features,), net=net),
        posterior=pv.posteriors.MeanFieldNormal((features,), latent, net=net),
    )
    svi = pv.training.SVI(vae, pv.estimators.ELBO(), functools.partial(torch.optim.Adam, lr=1e-3))
    return svi.update


def stock_pyro(features: int, hidden: int, latent: int) -> Callable[[Tensor], object]:
    encoder, decoder = networks(features, hidden, latent)
    pyro.clear_param_store()

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), latent), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x), dim=-1):
            loc, log_var = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, (0.5 * log_var).exp()).to_event(1))

    return pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()).step


CONTENDERS = {"this library": library, "hand-written PyTorch": hand_written, "stock Pyro SVI": stock_pyro}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, pyro {pyro.__version__}, {torch.get_num_threads()} threads")
    print("| work | contender | ms a step | to hand-written | to stock Pyro |\n|---|---|---|---|---|")
    for work, (features, hidden, latent, batch) in WORK.items():
        torch.manual_seed(0)
        x = torch.rand(batch, features).bernoulli()
        steps = {name: make(features, hidden, latent) for name, make in CONTENDERS.items()}
        best = dict.fromkeys(steps, float("inf"))
        for _ in range(options.rounds):
            for name, step in steps.items():
                for _ in range(5):
                    step(x)
                start = time.perf_counter()
                for _ in range(options.steps):
                    step(x)
                best[name] = min(best[name], (time.perf_counter() - start) / options.steps * 1e3)
        for name, ms in best.items():
            hand, stock = ms / best["hand-written PyTorch"], ms / best["stock Pyro SVI"]
            print(f"| {work} | {name} | {ms:.2f} | {hand:.2f} | {stock:.2f} |")


if __name__ == "__main__":
    main()
