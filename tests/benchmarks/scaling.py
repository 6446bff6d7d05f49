"""The cost of a step as each size grows, and how `particles_per_pass` bounds the memory.

Run `python tests/benchmarks/scaling.py`. It varies one size at a time around a base case (784 features, hidden layers
of 200, 50 latents, batch 64, 8 importance samples, depth 2), and prints milliseconds per step (fastest block, taken in
turn) and the slope of their logarithm over the upper half of the range. The same goes into figures/scaling.png. Then
it prints the peak memory of a step with 50 particles and of a log-likelihood with 5,000 samples, in one pass and in
several.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.evaluation.cost import PeakMemory, milliseconds
from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, styled
from pyro_vae.training import SVI, flush_denormals

ADAM = functools.partial(torch.optim.Adam, lr=1e-3)
MIDDLE = {"batch": 64, "latents": 50, "particles": 8, "depth": 2}
RANGES = {
    "batch": [8, 16, 32, 64, 128, 256],
    "latents": [4, 16, 64, 256, 1024],
    "particles": [1, 2, 4, 8, 16, 32],
    "depth": [1, 2, 4, 8, 16],
}


def program(latents: int, depth: int) -> pv.VAE:
    torch.manual_seed(0)
    net = functools.partial(pv.nets.MLP, hidden=(200,) * depth, activation=nn.Tanh)
    return pv.VAE(
        prior=pv.priors.StandardNormal(latents),
        likelihood=pv.likelihoods.Bernoulli(latents, (784,), net=net),
        posterior=pv.posteriors.MeanFieldNormal((784,), latents, net=net),
    )


def bits(batch: int) -> Tensor:
    return torch.rand(batch, 784, generator=torch.Generator().manual_seed(1)).round()


def step(batch: int, latents: int, particles: int, depth: int) -> Callable[[], object]:
    svi = SVI(program(latents, depth), pv.estimators.IWAE(num_particles=particles), ADAM)
    return functools.partial(svi.update, bits(batch))


def slope(sizes: list[int], costs: list[float]) -> float:
    """Return the slope of the logarithms over the upper half of the range."""
    low = len(sizes) // 2
    return math.log(costs[-1] / costs[low]) / math.log(sizes[-1] / sizes[low])


@styled
def draw(found: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots(1, len(found), sharey=True)
    for i, (ax, (name, costs)) in enumerate(zip(axes, found.items(), strict=True)):
        ax.plot(RANGES[name], costs, color=COLOURS[i], marker=MARKERS[i])
        ax.set(xscale="log", yscale="log", xlabel=name, title=f"slope {slope(RANGES[name], costs):.2f}")
        for axis, ticks in ((ax.xaxis, RANGES[name][::2]), (ax.yaxis, (5, 10, 20, 50, 100))):
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("milliseconds per step")
    figure.suptitle("Cost of a training step, one size varied at a time")
    return figure


def memory(rows: list[tuple[str, str, int]]) -> None:
    print("\n| what | particles_per_pass | peak of tensors, MiB |\n|---|---|---|")
    for what, at_once, peak in rows:
        print(f"| {what} | {at_once} | {peak / 2**20:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--figure", type=Path, default=Path("figures/scaling.png"))
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    with flush_denormals():
        for name, sizes in RANGES.items():
            steps = {str(size): step(**{**MIDDLE, name: size}) for size in sizes}
            times = milliseconds(steps, torch.device("cpu"), rounds=options.rounds, tick=lambda: None)
            found[name] = list(times.values())
            times = ", ".join(f"{size}: {ms:.1f}" for size, ms in times.items())
            print(f"{name}: {times} ms per step; slope {slope(sizes, found[name]):.2f}", flush=True)
    draw(found).savefig(options.figure, dpi=200)
    rows = []
    for at_once in (None, 10, 5):
        svi = SVI(program(50, 2), pv.estimators.IWAE(num_particles=50, particles_per_pass=at_once), ADAM)
        svi.update(bits(100))
        with PeakMemory() as peak:
            svi.update(bits(100))
        rows.append(("one step, 50 particles, batch 100", str(at_once or "all"), peak.bytes))
    vae = program(50, 2).eval()
    for draws in (500, 5000):
        with PeakMemory() as peak:
            pv.evaluation.log_likelihood(vae, bits(100), num_particles=draws)
        rows.append((f"log_likelihood, {draws} samples, 100 examples", "automatic", peak.bytes))
    memory(rows)


if __name__ == "__main__":
    main()
