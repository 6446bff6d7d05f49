"""Lower and upper bounds on log p(x) by annealing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import at_once, batches_of, one_batch
from pyro_vae.evaluation.laboratory.table import aligned, number
from pyro_vae.evaluation.likelihood.annealing import SKIP, backwards, forwards, tune
from pyro_vae.evaluation.likelihood.log_likelihood import summarize
from pyro_vae.evaluation.likelihood.target import Target
from pyro_vae.evaluation.posterior.simulate import Simulation, simulate
from pyro_vae.evaluation.result import Result
from pyro_vae.programs.program import Program, announcements_off, evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MarginalBounds", "Sandwich", "marginal_bounds"]


@dataclass(frozen=True)
class Sandwich:
    """Bounds from both sides on data that the program made itself.

    Attributes:
        x: the data, of shape ``(n, *shape)``
        lower: by annealing forwards, in nats, of shape ``(n,)``
        upper: by annealing backwards from the latents that each datum was made of, of shape ``(n,)``
        noise: standard error of the difference from the chains, of shape ``(n,)``
    """

    x: Tensor
    lower: Tensor
    upper: Tensor
    noise: Tensor

    @property
    def gap(self) -> float:
        """Mean of upper less lower bound, in nats per datum."""
        return float((self.upper - self.lower).mean())

    @property
    def error(self) -> float:
        """Standard error of the gap from the chains."""
        return float(self.noise.square().sum().sqrt() / len(self.noise))


@dataclass(frozen=True)
class MarginalBounds(Result):
    """Bounds on log p(x) in nats, which hold in expectation.

    Attributes:
        per_datum: lower bound of each datum, of shape ``(n,)``
        noise: its standard error from the chains, of shape ``(n,)``
        simulated: both bounds on simulated data, None if there are none
        chains: runs a datum
        steps: temperatures of a run
        acceptance: mean share of accepted moves
    """

    per_datum: Tensor
    noise: Tensor
    simulated: Sandwich | None
    chains: int
    steps: int
    acceptance: float

    @property
    def source(self) -> str:
        """How the values were found."""
        return f"annealing, {self.chains} chains, {self.steps:,} temperatures"

    @property
    def mean(self) -> float:
        """Mean lower bound, in nats per datum."""
        return float(self.per_datum.mean())

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the mean from the chains alone."""
        return float(self.noise.square().sum().sqrt() / len(self.noise))

    def __float__(self) -> float:
        return self.mean

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a datum, simulated ones below the given ones."""
        given = zip(self.per_datum.tolist(), self.noise.tolist(), strict=True)
        rows = [
            {"data": "given", "datum": i, "lower": v, "upper": math.nan, "noise": e} for i, (v, e) in enumerate(given)
        ]
        if (s := self.simulated) is not None:
            values = torch.stack([s.lower, s.upper, s.noise], 1).tolist()
            rows += [
                {"data": "simulated", "datum": i, "lower": a, "upper": b, "noise": e}
                for i, (a, b, e) in enumerate(values)
            ]
        return rows

    def summary(self) -> list[dict[str, Any]]:
        """Return a row for the given data and one for the simulated ones."""
        rows = [
            {
                "data": f"given ({len(self.per_datum):,})",
                "lower": number(self.mean, self.monte_carlo_error, 6),
                "upper": "-",
                "gap": "-",
            }
        ]
        if (s := self.simulated) is not None:
            rows.append(
                {
                    "data": f"simulated ({len(s.x):,})",
                    "lower": number(float(s.lower.mean()), s.error, 6),
                    "upper": number(float(s.upper.mean()), s.error, 6),
                    "gap": number(s.gap, s.error),
                }
            )
        return rows

    def __str__(self) -> str:
        head = (
            f"bounds on log p(x) in mean nats per datum: {self.chains} chains, {self.steps:,} temperatures, "
            f"{self.acceptance:.0%} of the moves accepted"
        )
        return f"{head}\n\n{aligned(self.summary())}"

    def plot(self) -> Figure:
        """Draw the gap of each simulated datum, and the bounds of the given data."""
        from pyro_vae.plots import marginal_bounds

        return marginal_bounds(self)


@dataclass
class Annealing:
    """How to anneal, and the bar that shows it."""

    chains: int
    steps: int
    leapfrogs: int
    bar: Any
    rates: list[Tensor] = field(default_factory=list)

    def run(self, program: Program, batch: tuple[Tensor, ...], made: Simulation | None = None) -> list[Tensor]:
        """Return log-mean weight and error of each datum, and the same of the way back for data that were made."""
        target = Target(program, batch, self.chains)
        pace = tune(target, self.steps, self.leapfrogs, self.bar.update)
        log_w, rate = forwards(target, self.steps, pace, self.bar.update)
        self.rates.append(rate)
        found = [*summarize(log_w)[:2]]
        if made is not None:
            back = backwards(target, target.at(made.sites), self.steps, pace, self.bar.update)
            found += summarize(back)[:2]
        return [column.cpu() for column in found]


def marginal_bounds(
    program: Program,
    x: Any,
    *,
    chains: int = 16,
    steps: int = 500,
    leapfrogs: int = 5,
    simulated: int = 16,
    seed: int = 0,
    progress: bool = False,
) -> MarginalBounds:
    r"""Bound log p(x) by annealed importance sampling, and tell how tight the bound is.

    Chains go from the prior to the posterior through the densities

    .. math:: f_t(z) \propto p(z)\, p(x \mid z)^t, \quad t: 0 \to 1, \qquad
              \log \frac1C \sum_c \prod_k \frac{f_{t_k}}{f_{t_{k-1}}}(z_{k-1}^c) \lesssim \log p(x)

    by Hamiltonian moves whose step size is tuned for each chain, datum and temperature to an acceptance of 0.65, in
    a pilot run. The guide is not used: unlike importance sampling, a poor guide does not loosen the bound. On data
    that the model made itself one exact draw of the posterior is known, from which annealing backwards gives an upper
    bound (bidirectional Monte Carlo). Both hold in expectation; their gap bounds the error on such data from above.

    Discrete latents are summed over. Weights, buffers, modes and random streams are left as they were.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008;
        On the quantitative analysis of decoder-based generative models (Wu et al., 2017),
        https://arxiv.org/abs/1611.04273; Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse
        et al., 2015), https://arxiv.org/abs/1511.02543

    Args:
        program: a Program with continuous latents in the plate of the data
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        chains: C, at least 2
        steps: number of temperatures; the gap falls about as one over it
        leapfrogs: leapfrog steps of a move
        simulated: how many data are simulated for the upper bound (their context and missing entries those of the
            first rows of ``x``); 0 for none
        seed: of all noise
        progress: show a progress bar

    Returns:
        The bounds: they print, export and plot.

    Raises:
        ValueError: the data do not fit the program; or it has latents that data share or that no Hamiltonian move
            reaches, or observes more than x while data are to be simulated (``simulated=0`` does without).

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = marginal_bounds(toy.program, toy.draw(4), steps=30, simulated=4)
        >>> found.simulated.gap < 0.5
        True
    """
    for name, value, least in (
        ("chains", chains, 2),
        ("steps", steps, SKIP),
        ("leapfrogs", leapfrogs, 1),
        ("simulated", simulated, 0),
    ):
        check_int(name, value, least)
    whole = one_batch(program, x)
    batches = batches_of(program, whole)
    batches.batch_size = max(1, at_once(batches) // chains)
    device = whole[0].device
    rows = torch.arange(simulated, device=device) % len(whole[0])
    runs = batches.steps * (steps + steps // SKIP) + bool(simulated) * (2 * steps + steps // SKIP)
    found, made = [], None
    with (
        evaluating(program),
        fork_rng(device, seed),
        pyro.validation_enabled(False),
        announcements_off(),
        progress_bar(total=runs, desc="annealing", unit="step", progress=progress) as bar,
    ):
        annealing = Annealing(chains, steps, leapfrogs, bar)
        if simulated:
            made = simulate(program, [column[rows] for column in whole])
        found = [annealing.run(program, batch) for batch in batches.epoch(0)]
        per_datum, noise = (torch.cat(column) for column in zip(*found, strict=True))
        sandwich = None
        if made is not None:
            lower, low_noise, inverse, high_noise = annealing.run(program, made.batch, made)
            sandwich = Sandwich(made.batch[0].cpu(), lower, -inverse, torch.hypot(low_noise, high_noise))
    acceptance = float(torch.stack(annealing.rates).mean())
    return MarginalBounds(per_datum, noise, sandwich, chains, steps, acceptance)
