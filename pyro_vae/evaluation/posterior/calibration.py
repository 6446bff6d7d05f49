"""Whether q(z given x) is the posterior of its own model: simulation-based calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import at_once, batches_of, one_batch
from pyro_vae.evaluation.laboratory.table import aligned, number
from pyro_vae.evaluation.posterior.simulate import simulate
from pyro_vae.evaluation.representation.codes import Sampled, units
from pyro_vae.evaluation.result import Result
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.trace import Site, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Calibration", "calibration"]

#: Name of the rank statistic that depends on the datum.
JOINT = "log p(x|z)"


@dataclass(frozen=True)
class Calibration(Result):
    """Ranks of true latents among draws of the guide, which are uniform if the guide is the posterior.

    Attributes:
        ranks: by name of the quantity (a unit of a latent site, or ``"log p(x|z)"``), ranks in (0, 1), of shape
            ``(simulations,)``; ties and steps are broken at random, so that they are exactly uniform
        level: the probability that an exact guide fails
    """

    ranks: dict[str, Tensor]
    level: float

    @property
    def p_values(self) -> dict[str, float]:
        """Of each quantity, the smaller p-value of a chi-square and a Kolmogorov-Smirnov test, times two."""
        return {name: min(1.0, 2 * min(chi_square(r), kolmogorov(r))) for name, r in self.ranks.items()}

    @property
    def passed(self) -> bool:
        """Whether no quantity fails; the level is shared out among them."""
        return min(self.p_values.values()) * len(self.ranks) > self.level

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a quantity."""
        return [
            {
                "quantity": name,
                "mean_rank": float(r.mean()),
                "rank_deviation": float(r.std()),
                "chi_square_p": chi_square(r),
                "kolmogorov_p": kolmogorov(r),
                "p": self.p_values[name],
            }
            for name, r in self.ranks.items()
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return the rows with what they mean, the worst twelve first."""
        rows = sorted(self.rows(), key=lambda row: row["p"])[:12]
        return [
            {
                "quantity": row["quantity"],
                "mean rank (0.5)": number(row["mean_rank"], digits=3),
                "deviation (0.289)": number(row["rank_deviation"], digits=3),
                "chi-square p": number(row["chi_square_p"], digits=2),
                "KS p": number(row["kolmogorov_p"], digits=2),
                "": "" if row["p"] * len(self.ranks) > self.level else f"fails: {reading(row)}",
            }
            for row in rows
        ]

    def __str__(self) -> str:
        n = len(next(iter(self.ranks.values())))
        verdict = "passes" if self.passed else "FAILS"
        head = f"the guide {verdict} at level {self.level} on {n:,} simulated data, {len(self.ranks)} quantities"
        return f"{head}\n\n{aligned(self.summary())}"

    def plot(self) -> Figure:
        """Draw the distribution of the ranks less that of uniform ones, with the band of the test."""
        from pyro_vae.plots import rank_curves

        return rank_curves(self)


def calibration(
    program: Program,
    x: Any,
    *,
    simulations: int = 1000,
    draws: int = 99,
    level: float = 0.01,
    seed: int = 0,
    progress: bool = False,
) -> Calibration:
    r"""Check q(z given x) by the ranks of latents that data were made of.

    .. math:: z^* \sim p(z), \quad x \sim p(x \mid z^*), \quad z_1, \dots, z_L \sim q(z \mid x), \qquad
              \#\{l: z_{l} < z^*\} \sim \mathrm{Uniform}\{0, \dots, L\}

    if q is the exact posterior. Ranks of each unit see a wrong place or width of q, but not a guide that ignores the
    datum and returns the prior; the rank of log p(x given z) sees that, too.

    References:
        Validating Bayesian inference algorithms with simulation-based calibration (Talts et al., 2018),
        https://arxiv.org/abs/1804.06788; Simulation-based calibration checking for Bayesian computation: the choice
        of test quantities (Modrak et al., 2023), https://arxiv.org/abs/2211.02383

    Args:
        program: a Program that observes x alone
        x: rows of data, or a tuple ``(x, context)``: their shape, missing entries and context are those of the
            simulated data, whose rows take turns
        simulations: how many data are simulated
        draws: L, of the guide for each datum
        level: the probability that an exact guide fails
        seed: of all noise
        progress: show a progress bar

    Returns:
        Ranks and tests: they print, export and plot.

    Raises:
        ValueError: the data do not fit the program, or it observes more than x or has latents that data share.

    Example:
        >>> import pyro_vae as pv
        >>> exact, broken = pv.testing.LinearGaussian(), pv.testing.LinearGaussian(off=0.2)
        >>> [calibration(toy.program, toy.draw(8), simulations=200).passed for toy in (exact, broken)]
        [True, False]
    """
    check_int("simulations", simulations, 20)
    check_int("draws", draws)
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    whole = one_batch(program, x)
    rows = torch.arange(simulations, device=whole[0].device) % len(whole[0])
    size = max(1, at_once(batches_of(program, whole)) // draws)
    parts: list[dict[str, Tensor]] = []
    with evaluating(program), fork_rng(whole, seed):
        for chosen in progress_bar(rows.split(size), desc="calibration", unit="batch", progress=progress):
            parts.append(ranks(program, [column[chosen] for column in whole], draws))
    return Calibration({name: torch.cat([p[name] for p in parts]) for name in parts[0]}, level)


def ranks(program: Program, batch: list[Tensor], draws: int) -> dict[str, Tensor]:
    """Simulate one batch and return the rank of each quantity, of shape (batch,)."""
    made = simulate(program, batch)
    # one particle more than draws: two at least are needed for a plate, and the last one is left out
    terms = run(program.model, program.guide, made.batch, {}, num_particles=draws + 1, draws=Sampled)
    found = {}
    for site in terms.latent:
        if not site.local:
            raise ValueError(
                f"program: the latent {site.name!r} is shared by the data, and its posterior is that given the "
                "training data, not the simulated ones: calibration checks latents of each datum"
            )
        drawn = units(site.guide, site.guide["value"])[:-1]
        shape = site.guide["value"].shape
        true = units(site.guide, made.sites[site.name]["value"].reshape(1, *shape[1:]).expand(shape))[:1]
        place = rank(true, drawn)
        one = place.shape[-1] == 1
        found |= {site.name if one else f"{site.name}[{i}]": r for i, r in enumerate(place.unbind(-1))}
    given = sum(site.log_p for site in terms.observed)[:-1]
    found[JOINT] = rank(Site("x", made.observed).log_p, given)
    return {name: r.double().cpu() for name, r in found.items()}


def rank(true: Tensor, drawn: Tensor) -> Tensor:
    """Return the place of true values among draws (first dimension) as a number in (0, 1), at random within ties."""
    below, same = (drawn < true).sum(0), (drawn == true).sum(0)
    return (below + torch.rand(below.shape, device=below.device) * (same + 1)) / (len(drawn) + 1)


def chi_square(ranks: Tensor) -> float:
    """Return the p-value of Pearson's test in equal bins, about ten ranks a bin and at most twenty."""
    bins = max(2, min(20, len(ranks) // 10))
    found = torch.histc(ranks, bins, 0.0, 1.0)
    expected = len(ranks) / bins
    statistic = (found - expected).square().sum() / expected
    half = torch.tensor((bins - 1) / 2, dtype=statistic.dtype)
    return float(torch.special.gammaincc(half, statistic / 2))


def kolmogorov(ranks: Tensor) -> float:
    """Return the p-value of the Kolmogorov-Smirnov test against the uniform distribution (Stephens' correction)."""
    n = len(ranks)
    ordered, steps = ranks.sort().values, torch.arange(n + 1, dtype=ranks.dtype) / n
    distance = float(torch.maximum((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
    scaled = distance * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    if scaled < 0.2:  # where the alternating series needs many terms, the value is 1 to 15 digits
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def reading(row: dict[str, Any]) -> str:
    """Say what ranks of this kind mean."""
    if row["quantity"] == JOINT:
        low = row["mean_rank"] < 0.5
        return "draws explain x better than its own latents" if low else "draws explain x worse than its own latents"
    if abs(row["mean_rank"] - 0.5) > abs(row["rank_deviation"] - 12**-0.5):
        return "q lies too low" if row["mean_rank"] > 0.5 else "q lies too high"
    return "q too narrow" if row["rank_deviation"] > 12**-0.5 else "q too wide"
