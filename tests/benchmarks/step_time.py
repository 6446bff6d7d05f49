"""The cost of one training step: this library, hand-written PyTorch, stock Pyro and NumPyro, in one process, in turn.

Run `python tests/benchmarks/step_time.py` (install NumPyro by `pip install 'pyro-vae[bench]'`; without it its rows are
left out). Milliseconds are the minimum over rounds of the mean of a block of steps, as other work on the machine can
only add time. Quote the ratios: each is the median over rounds of the ratio within a round, in which the blocks run
directly after one another. Every contender trains on one batch throughout.

The rows of this library run within `flush_denormals`, as in `fit`. PyTorch does not flush by default, and gets slower
while it trains: "hand-written, flushed" is the same code with `torch.set_flush_denormal(True)`.

On a machine with a GPU it runs there, with two more rows (this library as a CUDA graph without inductor, hand-written
PyTorch as a CUDA graph) and without the flushed ones; the clock is read after the device has finished.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from step_numpyro import numpyro_steps
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.training import eager_graph, flush_denormals, inductor
from pyro_vae.training.compile.compilers import Compiler


def networks(features: int, hidden: int, latent: int) -> tuple[nn.Module, nn.Module]:
    encoder = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, features))
    return encoder, decoder


def fused_adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, fused=True, capturable=parameters[0].is_cuda)


def hand_written(features: int, hidden: int, latent: int) -> Callable[[Tensor], object]:
    encoder, decoder = networks(features, hidden, latent)
    optimizer = fused_adam([*encoder.parameters(), *decoder.parameters()])

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
    """Return the networks of W3: importance weighted autoencoders (Burda et al., 2016)."""
    encoder = [nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 100)]
    decoder = [nn.Linear(50, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 784)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def weighted_hand_written(particles: int) -> Callable[[Tensor], object]:
    encoder, decoder = deep()
    optimizer = fused_adam([*encoder.parameters(), *decoder.parameters()])

    def step(x: Tensor) -> None:
        loc, log_var = encoder(x).chunk(2, -1)
        noise = torch.randn(particles, *loc.shape, device=loc.device)
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


Make = Callable[..., Callable[[Tensor], object]]


def compiled(make: Make, compiler: Compiler = inductor) -> Make:
    """Return the same contender with a step that is compiled in the first two calls."""

    def again(*sizes: int) -> Callable[[Tensor], object]:
        step = make(*sizes)
        step.__self__.compiler = compiler
        return step

    return again


def captured(make: Make) -> Make:
    """Return the same contender as a CUDA graph, captured in the first call."""

    def again(*sizes: int) -> Callable[[Tensor], object]:
        step, graphs = make(*sizes), []

        def replay(x: Tensor) -> None:
            if not graphs:
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    for _ in range(3):
                        step(x)
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    step(x)
                graphs.append(graph)
            graphs[0].replay()

        return replay

    return again


ON_GPU = torch.cuda.is_available()


def contenders(ours: Make, hand_written: Make, pyros: Make) -> dict[str, tuple[Make, Callable[[], Any]]]:
    """Return each contender with the context manager it runs in."""
    found = {
        "this library": (ours, flush_denormals),
        "this library, compiled": (compiled(ours), flush_denormals),
        "hand-written PyTorch": (hand_written, nullcontext),
        "stock Pyro SVI": (pyros, nullcontext),
    }
    if ON_GPU:
        found["this library, CUDA graph"] = (compiled(ours, eager_graph), nullcontext)
        found["hand-written, CUDA graph"] = (captured(hand_written), nullcontext)
    else:
        found["hand-written, flushed"] = (hand_written, flush_denormals)
    return found


CONTENDERS = contenders(library, hand_written, stock_pyro)
WEIGHTED = contenders(weighted_by_library, weighted_hand_written, weighted_by_pyro)
#: workloads: contenders, their sizes, the shape of a batch, the networks for NumPyro
WORK = {
    "W1": (CONTENDERS, (784, 400, 20), (128, 784), dict(hidden=(400,), latent=20)),
    "W2": (CONTENDERS, (64, 128, 8), (64, 64), dict(hidden=(128,), latent=8)),
    "W3": (WEIGHTED, (50,), (20, 784), dict(hidden=(200, 200), latent=50, particles=50)),
}
BASELINES = ("hand-written PyTorch", "stock Pyro SVI", "hand-written, CUDA graph", "NumPyro (jit, fori_loop)")
TITLES = {
    "W1": "784-400-20-400-784, ReLU, batch 128",
    "W2": "64-128-8-128-64, ReLU, batch 64",
    "W3": "50 importance samples, 784-200-200-50, tanh, batch 20",
}


def in_turn(step: Callable[[Tensor], object], x: Tensor) -> Callable[[int], None]:
    """Return a function that takes a number of steps."""

    def run(n: int) -> None:
        for _ in range(n):
            step(x)
        if ON_GPU:
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", nargs="*", choices=list(WORK), default=list(WORK))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    where = torch.cuda.get_device_name() if ON_GPU else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, pyro {pyro.__version__}, {where}")
    for work in options.work:
        makers, sizes, shape, networks = WORK[work]
        torch.manual_seed(0)
        with torch.device("cuda" if ON_GPU else "cpu"):
            x = torch.rand(shape).bernoulli()
            runs = {name: (in_turn(make(*sizes), x), within) for name, (make, within) in makers.items()}
        jax = numpyro_steps(x, **networks)
        if jax is not None:
            runs["NumPyro (jit, fori_loop)"] = (jax, nullcontext)
        first = {}
        for name, (run, within) in runs.items():
            with within():
                start = time.perf_counter()
                run(2)
                first[name] = time.perf_counter() - start
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, (run, within) in runs.items():
                with within():
                    run(5)
                    start = time.perf_counter()
                    run(options.steps)
                    taken[name].append((time.perf_counter() - start) / options.steps * 1e3)
        print(f"\n{work}: {TITLES[work]}")
        others = [name for name in BASELINES if name in taken]
        print(f"| contender | ms per step | {' | '.join(f'to {name}' for name in others)} | first two steps, s |")
        print("|" + "---|" * (3 + len(others)))
        for name, ms in taken.items():
            medians = (median(a / b for a, b in zip(ms, taken[other], strict=True)) for other in others)
            ratios = " | ".join(f"{ratio:.2f}" for ratio in medians)
            print(f"| {name} | {min(ms):.2f} | {ratios} | {first[name]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
