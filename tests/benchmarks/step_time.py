"""What one training step costs: this library, hand-written PyTorch and stock Pyro, in one process and in turn.

Run `python tests/benchmarks/step_time.py`. Each row is the minimum over rounds of the mean of a block of steps, as
other work on the machine only ever adds time; the ratios are what to quote.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

import pyro_vae as pv


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
    return stock_svi(encoder, decoder, latent, pyro.infer.Trace_ELBO())


def stock_svi(
    encoder: nn.Module, decoder: nn.Module, latent: int, bound: pyro.infer.ELBO
) -> Callable[[Tensor], object]:
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

    return pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), bound).step


def deep() -> tuple[nn.Module, nn.Module]:
    """The networks of W3, of the importance weighted autoencoders of Burda et al. (2016)."""
    encoder = [nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 100)]
    decoder = [nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 784)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def weighted_by_hand(particles: int) -> Callable[[Tensor], object]:
    encoder, decoder = deep()
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True)

    def step(x: Tensor) -> None:
        loc, log_var = encoder(x).chunk(2, -1)
        noise = torch.randn(particles, *loc.shape)
        z = loc + noise * (0.5 * log_var).exp()
        logits = decoder(z)
        log_px = -nn.functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        log_w = log_px + 0.5 * (noise.square() + log_var - z.square()).sum(-1)
        optimizer.zero_grad(set_to_none=True)
        (-(log_w.logsumexp(0) - math.log(particles)).mean()).backward()
        optimizer.step()

    return step


def weighted_by_library(particles: int) -> Callable[[Tensor], object]:
    net = functools.partial(pv.nets.MLP, hidden=(200, 200), activation=nn.Tanh)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(50),
        likelihood=pv.likelihoods.Bernoulli(50, (784,), net=net),
        posterior=pv.posteriors.MeanFieldNormal((784,), 50, net=net),
    )
    iwae = pv.estimators.IWAE(num_particles=particles)
    return pv.training.SVI(vae, iwae, functools.partial(torch.optim.Adam, lr=1e-3)).update


def weighted_by_pyro(particles: int) -> Callable[[Tensor], object]:
    encoder, decoder = deep()
    bound = pyro.infer.RenyiELBO(alpha=0.0, num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    return stock_svi(encoder, decoder, 50, bound)


CONTENDERS = {"this library": library, "hand-written PyTorch": hand_written, "stock Pyro SVI": stock_pyro}
WEIGHTED = {
    "this library": weighted_by_library,
    "hand-written PyTorch": weighted_by_hand,
    "stock Pyro SVI": weighted_by_pyro,
}
#: what is timed: contenders, their sizes, the shape of a batch
WORK = {
    "W1: 784-400-20-400-784, batch 128": (CONTENDERS, (784, 400, 20), (128, 784)),
    "W2: 64-128-8-128-64, batch 64": (CONTENDERS, (64, 128, 8), (64, 64)),
    "W3: 50 weighted particles, 784-200-200-50, tanh, batch 20": (WEIGHTED, (50,), (20, 784)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, pyro {pyro.__version__}, {torch.get_num_threads()} threads")
    print("| work | contender | ms a step | to hand-written | to stock Pyro |\n|---|---|---|---|---|")
    for work, (contenders, sizes, shape) in WORK.items():
        torch.manual_seed(0)
        x = torch.rand(shape).bernoulli()
        steps = {name: make(*sizes) for name, make in contenders.items()}
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
