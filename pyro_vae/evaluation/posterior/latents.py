"""What the latents encode: active units, rate and distortion, mutual information, collapse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.over import over
from pyro_vae.evaluation.posterior.information import Information, information
from pyro_vae.evaluation.posterior.posterior_means import means
from pyro_vae.evaluation.result import Result, number
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.trace import Sampled, Terms, run

__all__ = ["Latents", "latents"]

HINTS = """Hints for collapsed units, cheapest first:
  KL warm-up:              estimator=ELBO(beta=pv.training.Linear(...)), or beta below 1
  free bits:               estimator=ELBO(free_bits=0.1), in nats per dimension
  a weaker decoder:        a smaller network, or one that is not autoregressive
  a sharper likelihood:    units with a variance below the noise stay inactive (use a smaller or a learned scale)
  fewer latents:           units that the data do not need only cost time"""


@dataclass(frozen=True)
class Latents(Result, plot="latent_units"):
    r"""How a program uses its latents, in nats per example.

    Attributes:
        variance: by site, the variance over the data of the posterior mean of each unit
        threshold: a unit with a larger variance is active
        rate: by site, the mean divergence from the prior
        kl_per_dimension: by site, the divergence of each unit; NaN unless posterior and prior are products over units
        distortion: minus the mean of log p(x given z)
        information: by site, measures of the aggregate posterior
        num_examples: number of examples
    """

    variance: dict[str, Tensor]
    threshold: float
    rate: dict[str, float]
    kl_per_dimension: dict[str, Tensor]
    distortion: float
    information: dict[str, Information]
    num_examples: int

    @property
    def active(self) -> dict[str, int]:
        """Number of active units of each site."""
        return {name: int((v > self.threshold).sum()) for name, v in self.variance.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per unit."""
        return [
            {"site": name, "unit": i, "variance": v, "active": v > self.threshold, "kl": kl}
            for name, variance in self.variance.items()
            for i, (v, kl) in enumerate(zip(variance.tolist(), self.kl_per_dimension[name].tolist(), strict=True))
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return one row per site."""
        return [
            {
                "site": name,
                "active units": f"{self.active[name]} of {len(variance)}",
                "rate": number(self.rate[name]),
                "mutual information": number(self.information[name].mutual_information),
                "marginal KL": number(self.information[name].marginal_kl),
                "total correlation": number(self.information[name].total_correlation),
                "dimension-wise KL": number(self.information[name].dimension_wise_kl),
            }
            for name, variance in self.variance.items()
        ]

    def report(self) -> str:
        """Return which units have collapsed to the prior, and hints; empty if all units are active."""
        lines = []
        for name, variance in self.variance.items():
            idle = (variance <= self.threshold).nonzero().flatten().tolist()
            if idle:
                units = ", ".join(map(str, idle[:20])) + (", ..." if len(idle) > 20 else "")
                lines.append(f"{len(idle)} of {len(variance)} units of {name!r} have collapsed: {units}")
        return "\n".join([*lines, HINTS]) if lines else ""

    def heading(self) -> str:
        """Return rate and distortion."""
        rate = sum(self.rate.values())
        return (
            f"rate {number(rate)} + distortion {number(self.distortion, digits=5)} = "
            f"{number(rate + self.distortion, digits=5)} nats per example (minus the bound), {self.num_examples:,} "
            f"examples; a unit is active if the variance of its posterior mean is above {self.threshold}"
        )

    def notes(self) -> str:
        """Return why a number is missing, and the report."""
        missing = "\n".join(f"{name}: {i.missing}" for name, i in self.information.items() if i.missing)
        return "\n\n".join(part for part in (missing, self.report()) if part)


@in_turn
def latents(
    program: Program,
    x: Any,
    *,
    threshold: float = 0.01,
    num_samples: int = 16,
    num_aggregated: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> Latents:
    r"""Measure what each latent encodes: active units, rate and distortion, mutual information, collapse.

    A unit is active if its posterior mean varies with the example,

    .. math:: A_j = \operatorname{Var}_{x}\left(\mathbb E_{q(z \mid x)}[z_j]\right) > \text{threshold}

    (corrected for the noise of a mean of samples). See :class:`Information` for the aggregate posterior.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519;
        ELBO surgery (Hoffman and Johnson, 2016); Fixing a broken ELBO (Alemi et al., 2018),
        https://arxiv.org/abs/1711.00464; Isolating sources of disentanglement (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        threshold: threshold of the variance, 0.01 as in Burda et al.
        num_samples: samples of the latents per example, at least 2
        num_aggregated: number of evenly spaced examples in the aggregate posterior; its mutual information is at most
            the logarithm of this number
        seed: random seed
        progress: show a progress bar

    Returns:
        The measures, with hints if units have collapsed.

    Raises:
        ValueError: the data do not fit the program.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> pv.evaluation.latents(toy.program, toy.draw(500)).active
        {'z': 2}
    """
    num_samples = check_int("num_samples", num_samples, 2)
    num_aggregated = check_int("num_aggregated", num_aggregated)
    some = EvenlySpaced(num_aggregated)

    def measure_batch(*batch: Tensor) -> dict[str, Any]:
        some.add(batch)
        return measure(run(program.model, program.guide, batch, {}, num_particles=num_samples, draws=Sampled))

    options: dict[str, Any] = {"num_particles": num_samples, "seed": seed, "progress": progress}
    found = over(program, x, measure_batch, desc="latents", **options)
    names = list(found["mean"])
    with evaluating(program), fork_rng(program.device, seed):
        split = informations(run(program.model, program.guide, some.rows(), {}, draws=Sampled), names)
    variance = {name: found["mean"][name].var(0, correction=0) - found["noise"][name].mean(0) for name in names}
    return Latents(
        {name: v.clamp(min=0.0) for name, v in variance.items()},
        threshold,
        {name: float(found["kl"][name].mean()) for name in names},
        {name: found["kl_per_dimension"][name].mean(0) for name in names},
        -float(found["log_p"].mean()),
        split,
        some.seen,
    )


class EvenlySpaced:
    """Keeps evenly spaced rows of data with an unknown number of rows.

    Args:
        size: number of rows at the end; up to twice as many are kept on the way
    """

    def __init__(self, size: int) -> None:
        self.size, self.every, self.seen = size, 1, 0
        self.kept: tuple[Tensor, ...] = ()

    def add(self, batch: tuple[Tensor, ...]) -> None:
        """Add the rows of a batch."""
        new = tuple(column[-self.seen % self.every :: self.every] for column in batch)
        self.kept = tuple(map(torch.cat, zip(self.kept, new, strict=True))) if self.kept else new
        self.seen += len(batch[0])
        while len(self.kept[0]) >= 2 * self.size:
            self.kept = tuple(column[::2] for column in self.kept)
            self.every *= 2

    def rows(self) -> tuple[Tensor, ...]:
        """Return the rows."""
        n = len(self.kept[0])
        index = torch.linspace(0, n - 1, min(n, self.size)).round().long().to(self.kept[0].device)
        return tuple(column[index] for column in self.kept)


def measure(terms: Terms) -> dict[str, Any]:
    """Return for each example the means of units with their noise, divergences and log p(x given z)."""
    sites = {site.name: site for site in terms.latent if site.local}
    found = {name: m.double() for name, m in means(sites.values()).items()}
    sites, kl_per_dimension = {name: sites[name] for name in found}, {}  # without missing entries of the data
    for name, site in sites.items():
        try:
            each = site.kl_per_dimension.mean(0).double()
        except ValueError:
            each = None
        unknown = each is None or each.shape != found[name].shape[1:]
        kl_per_dimension[name] = torch.full_like(found[name][0], math.nan) if unknown else each
    log_p: Any = sum(site.log_p for site in terms.observed if site.local)
    return {
        "mean": {name: m.mean(0) for name, m in found.items()},
        "noise": {name: m.var(0) / terms.num_particles for name, m in found.items()},
        "kl": {name: terms.kl(site).double() for name, site in sites.items()},
        "kl_per_dimension": kl_per_dimension,
        "log_p": log_p.mean(0).double(),
    }


def informations(terms: Terms, names: list[str]) -> dict[str, Information]:
    """Measure the aggregate posterior of the site that the guide samples first; the others have no density q(z)."""
    first = next(name for name in terms.draws[0].values if name in names)
    missing = f"the guide samples it after {first!r}, on which it may depend"
    found = {name: Information(missing=missing) for name in names}
    return found | {site.name: information(site) for site in terms.latent if site.name == first}
