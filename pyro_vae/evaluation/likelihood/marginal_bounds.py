"""Lower and upper bounds on log p(x) by annealing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.likelihood.annealing import PILOT, anneal
from pyro_vae.evaluation.likelihood.annealing_path import AnnealingPath
from pyro_vae.evaluation.likelihood.importance_sampling import summarize
from pyro_vae.evaluation.over import one_batch, over
from pyro_vae.evaluation.result import PerExample, Result, number
from pyro_vae.programs.primitives import announcements_off
from pyro_vae.programs.program import Program
from pyro_vae.trace.simulate import simulate

__all__ = ["MarginalBounds", "Sandwich", "marginal_bounds"]


@dataclass(frozen=True)
class Sandwich:
    """Bounds from both sides on data that were simulated from the program.

    Attributes:
        x: the data, of shape ``(n, *shape)``
        lower: lower bounds by annealing from the prior, in nats, of shape ``(n,)``
        upper: upper bounds by annealing back from the latents of each example, of shape ``(n,)``
        gap: upper minus lower bounds
    """

    x: Tensor
    lower: Tensor
    upper: Tensor
    gap: PerExample


@dataclass(frozen=True)
class MarginalBounds(PerExample, Result, plot="marginal_bounds"):
    """Bounds on log p(x) in nats, which hold in expectation.

    Attributes:
        per_example: lower bound of each example, of shape ``(n,)``
        per_example_error: its standard error over the chains, of shape ``(n,)``
        weights: weights of the examples in the mean, of shape ``(n,)``; None for equal weights
        simulated: both bounds on simulated data, or None
        num_chains: runs per example
        num_steps: temperatures per run
        acceptance: mean share of accepted moves
    """

    simulated: Sandwich | None
    num_chains: int
    num_steps: int
    acceptance: float

    @property
    def source(self) -> str:
        """The method."""
        return f"annealing, {self.num_chains} chains, {self.num_steps:,} temperatures"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per example, simulated examples last."""
        unknown = torch.full_like(self.per_example, math.nan)
        parts = {"given": (self.per_example, unknown, self.per_example_error)}
        if (s := self.simulated) is not None:
            parts["simulated"] = (s.lower, s.upper, s.gap.per_example_error)
        return [
            {"data": name, "example": i, "lower": lower, "upper": upper, "std_error": error}
            for name, columns in parts.items()
            for i, (lower, upper, error) in enumerate(torch.stack(columns, 1).tolist())
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for the given data and one for the simulated data."""
        lower = number(self.mean, self.monte_carlo_error, 6)
        rows = [{"data": f"given ({len(self.per_example):,})", "lower": lower, "upper": "-", "gap": "-"}]
        if (s := self.simulated) is not None:
            error = s.gap.monte_carlo_error
            bounds = {name: number(float(getattr(s, name).mean()), error, 6) for name in ("lower", "upper")}
            rows.append({"data": f"simulated ({len(s.x):,})", **bounds, "gap": number(s.gap.mean, error)})
        return rows

    def heading(self) -> str:
        """Return how the bounds were computed, and whether they cross."""
        crossed = self.simulated is not None and self.simulated.gap.mean < 0
        note = "; upper is below lower by chance, as both hold in expectation: pass more chains or temperatures"
        return (
            f"bounds on log p(x) in mean nats per example: {self.num_chains} chains, {self.num_steps:,} temperatures, "
            f"{self.acceptance:.0%} of the moves accepted{note if crossed else ''}"
        )


@in_turn
def marginal_bounds(
    program: Program,
    x: Any,
    *,
    num_chains: int = 16,
    num_steps: int = 500,
    num_leapfrog_steps: int = 5,
    num_simulated: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> MarginalBounds:
    r"""Bound log p(x) by annealed importance sampling, from both sides on simulated data.

    Chains move from the prior to the posterior through the densities

    .. math:: f_t(z) \propto p(z)\, p(x \mid z)^t, \quad t: 0 \to 1, \qquad
              \log \frac1C \sum_c \prod_k \frac{f_{t_k}}{f_{t_{k-1}}}(z_{k-1}^c) \lesssim \log p(x)

    by Hamiltonian moves. A pilot run tunes their step size for each chain, example and temperature to an acceptance
    rate of 0.65. The guide is not used: unlike importance sampling, a poor guide does not loosen the bound. For data
    simulated from the model one exact sample of the posterior is known, and annealing back from it gives an upper
    bound (bidirectional Monte Carlo). Both bounds hold in expectation; their gap bounds the error on such data.
    Discrete latents are summed over.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008;
        On the quantitative analysis of decoder-based generative models (Wu et al., 2017),
        https://arxiv.org/abs/1611.04273; Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse
        et al., 2015), https://arxiv.org/abs/1511.02543

    Args:
        program: a Program with continuous latents for each example
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        num_chains: C, at least 2
        num_steps: number of temperatures, at least 4; the gap falls roughly as one over it
        num_leapfrog_steps: leapfrog steps per move
        num_simulated: number of examples simulated for the upper bound, with the context and missing entries of the
            first rows of ``x``; 0 for none
        seed: random seed
        progress: show a progress bar

    Returns:
        The bounds.

    Raises:
        ValueError: the data do not fit the program; examples share a latent; Hamiltonian moves cannot reach one; or
            the program observes more than x, so that no data can be simulated (use ``num_simulated=0``).

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = marginal_bounds(toy.program, toy.draw(4), num_steps=30, num_simulated=4)
        >>> found.simulated.gap.mean < 0.5
        True
    """
    num_chains = check_int("num_chains", num_chains, 2)
    num_steps = check_int("num_steps", num_steps, PILOT)
    num_leapfrog_steps = check_int("num_leapfrog_steps", num_leapfrog_steps)
    num_simulated = check_int("num_simulated", num_simulated, 0)
    whole = one_batch(program, x, seed=seed)
    options: dict[str, Any] = {
        "num_particles": num_chains,
        "seed": seed,
        "desc": "marginal bounds",
        "progress": progress,
    }

    def lower(*batch: Tensor) -> tuple[Tensor, ...]:
        path = AnnealingPath(program, batch, num_chains)
        log_w, acceptance = anneal(path, num_steps, num_leapfrog_steps, progress=progress)
        return *summarize(log_w)[:2], acceptance

    def both(*batch: Tensor) -> tuple[Tensor, ...]:
        made = simulate(program.model, batch)
        path = AnnealingPath(program, made.batch, num_chains)
        exact = path.repeat(made.run.latent)
        log_w, _, back = anneal(path, num_steps, num_leapfrog_steps, exact, progress=progress)
        return made.batch[0], *summarize(log_w)[:2], *summarize(back)[:2]

    sandwich = None
    with pyro.validation_enabled(False), announcements_off():
        if num_simulated:
            rows = torch.arange(num_simulated, device=whole[0].device) % len(whole[0])
            some = tuple(column[rows] for column in whole)
            x, low, low_error, inverse, high_error = over(program, some, both, **options)
            sandwich = Sandwich(x, low, -inverse, PerExample(-inverse - low, torch.hypot(low_error, high_error)))
        found, error, acceptance = over(program, whole, lower, **options)
    return MarginalBounds(found, error, sandwich, num_chains, num_steps, float(acceptance.mean()))
