"""Tightness and signal-to-noise ratio against the number of particles, on the Gaussian toy of Rainforth et al. (2018).

z ~ N(mu, I), x given z ~ N(z, I), q(z given x) = N(A x + b, 2/3 I) in 20 dimensions: evidence and gaps are known.
Run `python tests/benchmarks/rainforth.py`: it prints the table of gaps and the slopes of the signal-to-noise ratio in
the number of particles, and writes figures/rainforth_snr.png. Expected slopes: +1/2 for the model, -1/2 for the guide
under IWAE, +1/2 under the doubly reparameterized gradient and the (for K > 1 biased) path derivative. VIMCO treats the
guide's normal as one without reparameterized samples.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyro
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from pyro import distributions as dist
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae._util.random_state import derive_seed
from pyro_vae.evaluation.laboratory.gradients import GradientSampler, Moments
from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, styled
from pyro_vae.programs.primitives import DataPlate, announce
from pyro_vae.programs.program import Program

ESTIMATORS = {
    "IWAE": pv.estimators.IWAE,
    "DReG": pv.estimators.DReG,
    "STL": pv.estimators.StickingTheLanding,
    "VIMCO": pv.estimators.VIMCO,
}


class Toy(Program):
    """The toy model; b of its guide is shifted away from the optimum in every dimension.

    Args:
        dimensions: dimension of x and z
        variance: variance of the guide; the posterior has 1/2
        off: size of the shift
        normal: class of the guide's distribution
    """

    def __init__(
        self,
        dimensions: int = 20,
        variance: float = 2 / 3,
        off: float = 0.08,
        normal: Callable[..., Any] = dist.Normal,
    ) -> None:
        super().__init__()
        self.variance, self.normal = variance, normal
        generator = torch.Generator().manual_seed(0)

        mean = torch.randn(dimensions, generator=generator, dtype=torch.float64)
        self.prior = nn.ParameterDict({"mu": nn.Parameter(mean)})
        half = torch.eye(dimensions, dtype=torch.float64) / 2
        self.posterior = nn.ParameterDict({"A": nn.Parameter(half), "b": nn.Parameter(mean / 2 + off)})

    def model(self, x: Tensor) -> Tensor:
        announce(prior=self.prior)
        with DataPlate(x):
            z = pyro.sample("z", dist.Normal(self.prior["mu"], 1.0).expand(x.shape[-1:]).to_event(1))
            return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        announce(posterior=self.posterior)
        mean = x @ self.posterior["A"].T + self.posterior["b"]
        with DataPlate(x):
            return pyro.sample("z", self.normal(mean, math.sqrt(self.variance)).to_event(1))

    def draw(self, n: int, seed: int = 1) -> Tensor:
        """Return samples of x from the model."""
        noise = torch.randn(n, len(self.prior["mu"]), generator=torch.Generator().manual_seed(seed)).double()
        return (self.prior["mu"] + math.sqrt(2) * noise).detach()

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return the exact log p(x) of each row."""
        return dist.Normal(self.prior["mu"], math.sqrt(2)).to_event(1).log_prob(x)

    def gaps(self, x: Tensor, k: int) -> Tensor:
        """Return the gap of each row: exact for one particle, its first order chi squared / 2 K for more."""
        mean = (x + self.prior["mu"]) / 2
        apart = (x @ self.posterior["A"].T + self.posterior["b"] - mean).square().detach()
        t, s = self.variance, 0.5
        if k == 1:
            return 0.5 * (t / s - 1 - math.log(t / s) + apart / s).sum(-1)
        log_chi = (math.log(t / math.sqrt(s * (2 * t - s))) + apart / (2 * t - s)).sum(-1)
        return log_chi.expm1() / (2 * k)


def signal(
    toy: Toy, make: Callable[..., pv.estimators.Estimator], k: int, *, draws: int, data: int
) -> dict[str, float]:
    """Return the signal-to-noise ratio of the mean gradient of `rows` copies of one row, for model and guide.

    The copies have independent samples. They are the M outer samples of the paper, and raise all ratios by sqrt(M),
    above the noise of their estimate.
    """
    x = toy.draw(1).expand(data, -1)
    sampler = GradientSampler(toy, make(num_particles=k), (x,))
    groups = {"model": ["prior.mu"], "guide": ["posterior.b"]}
    found = {group: Moments() for group in groups}
    for i in range(draws):
        sampler.backward(derive_seed(k, i))
        for group, names in groups.items():
            found[group].add(sampler.gradient(names))
    return {group: float((m.mean.abs() / m.variance.sqrt()).mean()) for group, m in found.items()}


def slope(particles: Sequence[int], ratios: Sequence[float]) -> float:
    """Return the slope of a least-squares line through logarithms.

    Example:
        >>> round(slope([1, 10, 100], [1.0, 0.1, 0.01]), 6)
        -1.0
    """
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (particles, ratios))
    x = x - x.mean()
    return float((x @ y) / (x @ x))


@styled
def figure(particles: Sequence[int], ratios: dict[str, dict[str, list[float]]]) -> Figure:
    """Plot signal-to-noise ratios against particles, with their slopes."""
    drawn = Figure(figsize=(1.5 * WIDTH, 3.6), layout="constrained")
    panels = drawn.subplots(1, 2)
    for axes, group in zip(panels, ("model", "guide"), strict=True):
        for i, (name, found) in enumerate(ratios.items()):
            label = f"{name}, slope {slope(particles, found[group]):+.2f}"
            # IWAE, DReG and STL share the gradient of the model: their lines coincide
            width = 1.6 + 1.6 * (len(ratios) - 1 - i) if group == "model" else 1.6
            axes.plot(particles, found[group], color=COLOURS[i], marker=MARKERS[i], label=label, linewidth=width)
        parameter = {"model": r"the model, $\mu$", "guide": "the guide, $b$"}[group]
        axes.set(title=f"Gradient of {parameter}", xlabel="particles K", xscale="log", yscale="log")
        axes.set_xticks(particles, [str(k) for k in particles])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.grid(True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    panels[0].set_ylabel("signal-to-noise ratio")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--data", type=int, default=512)
    parser.add_argument("--particles", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--figure", type=Path, default=Path("figures/rainforth_snr.png"))
    options = parser.parse_args()
    toy = Toy()
    x = toy.draw(2000)
    print("| K | exact or chi²/2K | IWAE |\n|---|---|---|")
    for k in (1, 10, 100):
        exact = float(toy.gaps(x, k).mean())
        with torch.no_grad(), pv.rng.fork_rng(seed=0):
            gap = toy.log_evidence(x) - pv.estimators.IWAE(num_particles=k).per_datum(toy.model, toy.guide, x)
        print(f"| {k} | {exact:.5f} | {gap.mean():.5f} ± {gap.std() / len(gap) ** 0.5:.5f} |")
    ratios: dict[str, dict[str, list[float]]] = {}
    for name, make in ESTIMATORS.items():
        toy = Toy(normal=NonreparameterizedNormal if make is pv.estimators.VIMCO else dist.Normal)
        rows = [signal(toy, make, k, draws=options.draws, data=options.data) for k in options.particles]
        ratios[name] = {group: [row[group] for row in rows] for group in ("model", "guide")}
        print(
            f"{name}: {', '.join(f'{g} {slope(options.particles, v):+.3f}' for g, v in ratios[name].items())}",
            flush=True,
        )
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure(options.particles, ratios).savefig(options.figure)


if __name__ == "__main__":
    main()
