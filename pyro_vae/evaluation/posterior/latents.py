"""What the latents carry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import at_once, batches_of
from pyro_vae.evaluation.laboratory.table import aligned, number
from pyro_vae.evaluation.representation.codes import Sampled, means
from pyro_vae.evaluation.representation.information import Information, information
from pyro_vae.evaluation.result import Result
from pyro_vae.programs.program import Program, device_of, evaluating
from pyro_vae.trace import Terms, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Latents", "latents"]

ADVICE = """What helps, from the cheapest on:
  warm the divergence up:   estimator=ELBO(beta=pv.training.Linear(...)), or beta below 1
  grant it for nothing:     estimator=ELBO(free_bits=0.1), in nats a dimension
  weaken the decoder:       a smaller network, or none that sees earlier pixels
  sharpen the likelihood:   units stay off whose variance is below the noise (a smaller or a learned scale)
  ask for fewer latents:    units that the data do not need cost nothing but time"""


@dataclass(frozen=True)
class Latents(Result):
    r"""How the program uses its latents; all in nats per datum.

    Attributes:
        variance: for each site, the variance over the data of the posterior mean of each unit
        threshold: a unit whose variance is above it is active
        rate: for each site, the mean divergence from the prior
        kl_per_dimension: for each site, that of each unit; NaN where posterior or prior is no product over units
        distortion: minus the mean of log p(x given z)
        information: for each site, of the aggregate posterior
        data: how many
    """

    variance: dict[str, Tensor]
    threshold: float
    rate: dict[str, float]
    kl_per_dimension: dict[str, Tensor]
    distortion: float
    information: dict[str, Information]
    data: int

    @property
    def active(self) -> dict[str, int]:
        """Number of active units of each site."""
        return {name: int((v > self.threshold).sum()) for name, v in self.variance.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a unit."""
        return [
            {"site": name, "unit": i, "variance": v, "active": v > self.threshold, "kl": kl}
            for name, variance in self.variance.items()
            for i, (v, kl) in enumerate(zip(variance.tolist(), self.kl_per_dimension[name].tolist(), strict=True))
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return one row a site."""
        return [
            {
                "site": name,
                "active units": f"{self.active[name]} of {len(variance)}",
                "rate": number(self.rate[name]),
                "mutual information": number(self.information[name].mutual_information),
                "marginal KL": number(self.information[name].marginal_kl),
                "total correlation": number(self.information[name].total_correlation),
                "dimension-wise KL": number(self.information[name].dimension_wise),
            }
            for name, variance in self.variance.items()
        ]

    def report(self) -> str:
        """Return which units have collapsed onto the prior, and what to do about it; empty if all are active."""
        idle = {name: (v <= self.threshold).nonzero().flatten().tolist() for name, v in self.variance.items()}
        lines = [
            f"{len(where)} of {len(self.variance[name])} units of {name!r} have collapsed: {listed(where)}"
            for name, where in idle.items()
            if where
        ]
        return "\n".join([*lines, ADVICE]) if lines else ""

    def __str__(self) -> str:
        rate = sum(self.rate.values())
        head = (
            f"rate {number(rate)} + distortion {number(self.distortion, digits=5)} = "
            f"{number(rate + self.distortion, digits=5)} nats per datum (minus the bound), {self.data:,} data; a unit "
            f"is active where the variance of its posterior mean is above {self.threshold}"
        )
        notes = [f"{name}: {i.missing}" for name, i in self.information.items() if i.missing]
        return "\n\n".join(part for part in (head, aligned(self.summary()), "\n".join(notes), self.report()) if part)

    def plot(self) -> Figure:
        """Draw divergence and variance of each unit."""
        from pyro_vae.plots import latent_units

        return latent_units(self)


def latents(
    program: Program,
    x: Any,
    *,
    threshold: float = 0.01,
    draws: int = 16,
    aggregate: int = 2000,
    seed: int = 0,
) -> Latents:
    r"""Measure what each latent carries: active units, rate and distortion, mutual information, collapse.

    A unit is active if its posterior mean moves with the datum,

    .. math:: A_j = \operatorname{Var}_{x}\left(\mathbb E_{q(z \mid x)}[z_j]\right) > \text{threshold}

    (corrected for the noise of a mean of draws). What the aggregate posterior tells is in :class:`Information`.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519;
        ELBO surgery (Hoffman and Johnson, 2016); Fixing a broken ELBO (Alemi et al., 2018),
        https://arxiv.org/abs/1711.00464; Isolating sources of disentanglement (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        threshold: of the variance, 0.01 as in the first paper
        draws: of the latents of each datum, at least 2
        aggregate: from how many data, evenly spaced, the aggregate posterior is made; its mutual information cannot
            exceed their logarithm
        seed: of the draws

    Returns:
        What was found: it prints, with advice where units have collapsed, exports and plots.

    Raises:
        ValueError: the data do not fit the program.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> pv.evaluation.latents(toy.program, toy.draw(500)).active
        {'z': 2}
    """
    check_int("draws", draws, 2)
    check_int("aggregate", aggregate)
    batches = batches_of(program, x)
    batches.batch_size = max(1, at_once(batches) // draws)
    device = device_of(program)
    parts: list[dict[str, Any]] = []
    kept: list[tuple[Tensor, ...]] = []
    done, every = 0, max(1, math.ceil(len(batches) / aggregate))
    with evaluating(program), fork_rng(device, seed):
        for batch in batches.epoch(0):
            terms = run(program.model, program.guide, batch, {}, num_particles=draws, draws=Sampled)
            parts.append(measure(terms))
            rows = torch.arange(-done % every, len(batch[0]), every, device=device)
            done += len(batch[0])
            # a stream does not tell its size: its first data are taken
            if sum(len(part[0]) for part in kept) < aggregate:
                kept.append(tuple(column[rows] for column in batch))
        whole = tuple(torch.cat(column)[:aggregate] for column in zip(*kept, strict=True))
        terms = run(program.model, program.guide, whole, {}, draws=Sampled)
        split = informations(terms, list(parts[0]["means"]))
    names = list(parts[0]["means"])
    variance = {}
    for name in names:
        mean = torch.cat([p["means"][name][0] for p in parts])
        noise = torch.cat([p["means"][name][1] for p in parts]).mean(0)
        variance[name] = (mean.var(0, correction=0) - noise).clamp(min=0.0)
    return Latents(
        variance,
        threshold,
        {name: float(torch.cat([p["kl"][name] for p in parts]).mean()) for name in names},
        {name: torch.cat([p["each"][name] for p in parts]).mean(0) for name in names},
        -float(torch.cat([p["gain"] for p in parts]).mean()),
        split,
        done,
    )


def informations(terms: Terms, names: list[str]) -> dict[str, Information]:
    """Measure the aggregate posterior of the site that the guide draws first, and say why no other's is."""
    first = next(name for name in terms.draws[0].values if name in names)
    found = {
        name: Information(missing=f"the guide draws it after {first!r}, on which it may depend") for name in names
    }
    return found | {site.name: information(site) for site in terms.latent if site.name == first}


def measure(terms: Terms) -> dict[str, Any]:
    """Return what one batch tells: means of units with their noise, divergences and log p(x given z)."""
    draws = terms.num_particles
    sites = {site.name: site for site in terms.latent if site.local}
    found = {name: m.double().cpu() for name, m in means(site.guide for site in sites.values()).items()}
    each = {}
    for name, site in sites.items():
        try:
            each[name] = site.kl_per_dimension.mean(0).double().cpu()
        except ValueError:
            each[name] = found[name].new_empty(0)
        if each[name].shape != found[name].shape[1:]:
            each[name] = torch.full_like(found[name][0], math.nan)
    return {
        "means": {name: (m.mean(0), m.var(0) / draws) for name, m in found.items()},
        "kl": {name: terms.kl(site).double().cpu() for name, site in sites.items()},
        "each": each,
        "gain": sum(site.log_p for site in terms.observed if site.local).mean(0).double().cpu(),
    }


def listed(numbers: list[int]) -> str:
    """Write numbers, the first twenty of them."""
    return ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
