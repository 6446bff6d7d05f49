"""Simulation-based calibration: whether q(z given x) is the posterior of its own model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.validation import check_int, check_number
from pyro_vae.evaluation.over import one_batch, over
from pyro_vae.evaluation.result import Result, number
from pyro_vae.programs.program import Program
from pyro_vae.trace import Sampled, Site, run
from pyro_vae.trace.simulate import simulate

__all__ = ["Calibration", "calibration"]

#: Name of the test quantity that depends on the example.
JOINT = "log p(x|z)"


@dataclass(frozen=True)
class Calibration(Result, plot="rank_curves"):
    """Ranks of true latents among samples of the guide. They are uniform if the guide is the exact posterior.

    Attributes:
        ranks: by name of the test quantity (a unit of a latent site, or ``"log p(x|z)"``), ranks in (0, 1), of shape
            ``(num_simulations,)``; ties are broken at random, so that they are exactly uniform
        level: probability that an exact guide fails
    """

    ranks: dict[str, Tensor]
    level: float

    @property
    def p_values(self) -> dict[str, float]:
        """For each quantity twice the smaller p-value of a chi-square and a Kolmogorov-Smirnov test."""
        return {name: min(1.0, 2 * min(chi_square(r), kolmogorov(r))) for name, r in self.ranks.items()}

    @property
    def passed(self) -> bool:
        """Whether no quantity fails at its share of the level."""
        return min(self.p_values.values()) * len(self.ranks) > self.level

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per quantity."""
        return [
            {
                "quantity": name,
                "mean_rank": float(r.mean()),
                "rank_std": float(r.std()),
                "chi_square_p": chi_square(r),
                "kolmogorov_p": kolmogorov(r),
                "p": self.p_values[name],
            }
            for name, r in self.ranks.items()
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return the twelve rows with the smallest p-values, and what they mean."""
        rows = sorted(self.rows(), key=lambda row: row["p"])[:12]
        return [
            {
                "quantity": row["quantity"],
                "mean rank (0.5)": number(row["mean_rank"], digits=3),
                "std (0.289)": number(row["rank_std"], digits=3),
                "chi-square p": number(row["chi_square_p"], digits=2),
                "KS p": number(row["kolmogorov_p"], digits=2),
                "": "" if row["p"] * len(self.ranks) > self.level else f"fails: {interpretation(row)}",
            }
            for row in rows
        ]

    def heading(self) -> str:
        """Return whether the guide passes."""
        n = len(next(iter(self.ranks.values())))
        verdict = "passes" if self.passed else "FAILS"
        return f"the guide {verdict} at level {self.level} on {n:,} simulated examples, {len(self.ranks)} quantities"


@in_turn
def calibration(
    program: Program,
    x: Any,
    *,
    num_simulations: int = 1000,
    num_samples: int = 99,
    level: float = 0.01,
    seed: int = 0,
    progress: bool = True,
) -> Calibration:
    r"""Check q(z given x) by simulation-based calibration.

    .. math:: z^* \sim p(z), \quad x \sim p(x \mid z^*), \quad z_1, \dots, z_L \sim q(z \mid x), \qquad
              \#\{l: z_{l} < z^*\} \sim \mathrm{Uniform}\{0, \dots, L\}

    if q is the exact posterior. The ranks of each unit detect a wrong location or width of q, but not a guide that
    ignores x and returns the prior; the rank of log p(x given z) detects that too. A likelihood without ``log_prob``
    has no such rank.

    References:
        Validating Bayesian inference algorithms with simulation-based calibration (Talts et al., 2018),
        https://arxiv.org/abs/1804.06788; Simulation-based calibration checking for Bayesian computation: the choice
        of test quantities (Modrak et al., 2023), https://arxiv.org/abs/2211.02383

    Args:
        program: a Program that observes x, and maybe context
        x: rows of data, or a tuple ``(x, context)``; the simulated data have their shape, missing entries and context,
            row by row and from the first row again
        num_simulations: number of simulated examples, at least 20
        num_samples: L, samples of the guide per example
        level: probability that an exact guide fails
        seed: random seed
        progress: show a progress bar

    Returns:
        Ranks and tests.

    Raises:
        ValueError: the data do not fit the program or cannot be simulated, or examples share latents.

    Example:
        >>> import pyro_vae as pv
        >>> exact, broken = pv.testing.LinearGaussian(), pv.testing.LinearGaussian(off=0.2)
        >>> [calibration(toy.program, toy.draw(8), num_simulations=200).passed for toy in (exact, broken)]
        [True, False]
    """
    num_simulations = check_int("num_simulations", num_simulations, 20)
    num_samples = check_int("num_samples", num_samples)
    check_number("level", level, above=0, below=1)
    whole = one_batch(program, x, seed=seed)
    rows = torch.arange(num_simulations, device=whole[0].device) % len(whole[0])
    simulated = tuple(column[rows] for column in whole)

    def rank_batch(*batch: Tensor) -> dict[str, Tensor]:
        return simulated_ranks(program, batch, num_samples)

    options: dict[str, Any] = {"num_particles": num_samples, "seed": seed, "progress": progress}
    return Calibration(over(program, simulated, rank_batch, desc="calibration", **options), level)


def simulated_ranks(program: Program, batch: tuple[Tensor, ...], num_samples: int) -> dict[str, Tensor]:
    """Simulate one batch and return the rank of each quantity, of shape ``(batch,)``."""
    made = simulate(program.model, batch)
    # a plate of particles needs at least two, so there is one more than samples, which is dropped
    terms = run(program.model, program.guide, made.batch, {}, num_particles=num_samples + 1, draws=Sampled)
    found: dict[str, Tensor] = {}
    for site in terms.latent:
        if not site.local:
            raise ValueError(
                f"program: expected one latent per example, but {site.name!r} is shared by all examples, and its "
                "posterior depends on the training data, not on the simulated data"
            )
        sampled = site.per_row(site.guide["value"])[:-1]
        shape = site.guide["value"].shape
        true = site.per_row(made.run.latent[site.name]["value"].reshape(1, *shape[1:]).expand(shape))[:1]
        place = rank(true, sampled)
        names = [f"{site.name}[{i}]" for i in range(place.shape[-1])] if place.shape[-1] > 1 else [site.name]
        found |= dict(zip(names, place.unbind(-1), strict=True))
    try:
        sites = [Site(site.name, made.run.observed[site.name], layout=site.layout) for site in terms.observed]
        true, sampled = (torch.stack([site.log_p for site in group]).sum(0) for group in (sites, terms.observed))
        found[JOINT] = rank(true, sampled[:-1])
    except NotImplementedError:
        pass  # a simulator without a density
    return {name: r.double() for name, r in found.items()}


def rank(true: Tensor, sampled: Tensor) -> Tensor:
    """Return the rank of true values among samples (first dimension) as a number in (0, 1), random within ties."""
    below, same = (sampled < true).sum(0), (sampled == true).sum(0)
    return (below + torch.rand(below.shape, device=below.device) * (same + 1)) / (len(sampled) + 1)


def chi_square(ranks: Tensor) -> float:
    """Return the p-value of Pearson's test with equal bins: about ten ranks per bin, at most twenty bins."""
    bins = max(2, min(20, len(ranks) // 10))
    expected = len(ranks) / bins
    statistic = (torch.histc(ranks, bins, 0.0, 1.0) - expected).square().sum() / expected
    half = torch.tensor((bins - 1) / 2, dtype=statistic.dtype)
    return float(torch.special.gammaincc(half, statistic / 2))


def kolmogorov(ranks: Tensor) -> float:
    """Return the p-value of the Kolmogorov-Smirnov test against the uniform distribution (Stephens' correction)."""
    n = len(ranks)
    ordered, steps = ranks.sort().values, torch.arange(n + 1, dtype=ranks.dtype) / n
    distance = float(torch.maximum((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
    scaled = distance * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    if scaled < 0.2:  # the alternating series needs many terms here, and its value is 1 to 15 digits
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def interpretation(row: dict[str, Any]) -> str:
    """Return what the ranks of a quantity mean."""
    if row["quantity"] == JOINT:
        better = "better" if row["mean_rank"] < 0.5 else "worse"
        return f"samples explain x {better} than its own latents"
    if abs(row["mean_rank"] - 0.5) > abs(row["rank_std"] - 12**-0.5):
        return "q lies too low" if row["mean_rank"] > 0.5 else "q lies too high"
    return "q too narrow" if row["rank_std"] > 12**-0.5 else "q too wide"
