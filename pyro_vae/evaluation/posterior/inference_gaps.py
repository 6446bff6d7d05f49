"""Where the bound loses: the family of the posterior, its encoder, or the number of particles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.estimators import ELBO
from pyro_vae.evaluation.inputs import at_once, batches_of, one_batch
from pyro_vae.evaluation.laboratory.table import aligned, number
from pyro_vae.evaluation.likelihood.log_likelihood import LogLikelihood, log_weights, summarize
from pyro_vae.evaluation.likelihood.marginal_bounds import MarginalBounds
from pyro_vae.evaluation.posterior.local import Local
from pyro_vae.evaluation.result import PerExample, Result
from pyro_vae.programs.program import Program, announcements_off, evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Gap", "InferenceGaps", "inference_gaps"]

Evidence = Callable[..., Tensor] | LogLikelihood | MarginalBounds

#: Draws of the bound in each step of the optimisation.
DRAWS = 16


@dataclass(frozen=True)
class Gap(PerExample):
    """One gap in nats.

    Attributes:
        per_datum: of shape ``(n,)``
        noise: Monte Carlo standard error of each entry, of shape ``(n,)``
    """

    per_datum: Tensor
    noise: Tensor


@dataclass(frozen=True)
class InferenceGaps(Result):
    """The gaps of :func:`inference_gaps`, each per datum.

    Attributes:
        approximation: log p(x) less the bound at the best posterior of the family
        amortization: that bound less the one at the encoder's posterior
        inference: the sum of the two
        estimator: log p(x) less the importance-weighted bound at the encoder's posterior
        num_particles: of the importance-weighted bound
        evidence: how log p(x) was found
    """

    approximation: Gap
    amortization: Gap
    inference: Gap
    estimator: Gap
    num_particles: int
    evidence: str

    @property
    def gaps(self) -> dict[str, Gap]:
        """The gaps by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)[:4]}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a datum."""
        columns = {name: gap.per_datum for name, gap in self.gaps.items()}
        columns |= {f"{name}_noise": gap.noise for name, gap in self.gaps.items()}
        values = torch.stack(list(columns.values()), 1).tolist()
        return [{"datum": i, **dict(zip(columns, row, strict=True))} for i, row in enumerate(values)]

    def summary(self) -> list[dict[str, Any]]:
        """Return one row a gap."""
        meaning = {
            "approximation": "log p(x) - L[q*]: the family of q",
            "amortization": "L[q*] - L[q]: the encoder",
            "inference": "log p(x) - L[q]: both",
            "estimator": f"log p(x) - L_{self.num_particles}[q]: importance weights",
        }
        return [
            {
                "gap": name,
                "nats per datum": number(gap.mean, gap.standard_error),
                "from the draws": number(gap.monte_carlo_error),
                "what it is": meaning[name],
            }
            for name, gap in self.gaps.items()
        ]

    def __str__(self) -> str:
        n = len(self.inference.per_datum)
        return f"inference gaps of {n:,} data; log p(x): {self.evidence}\n\n{aligned(self.summary())}"

    def plot(self) -> Figure:
        """Draw how the gaps spread over the data."""
        from pyro_vae.plots import inference_gaps

        return inference_gaps(self)


def inference_gaps(
    program: Program,
    x: Any,
    *,
    evidence: Evidence | None = None,
    num_particles: int = 1000,
    steps: int = 500,
    rate: float = 0.05,
    seed: int = 0,
    progress: bool = False,
) -> InferenceGaps:
    r"""Split the gap between log p(x) and the bound into what the family, the encoder and the particles lose.

    .. math:: \log p(x) - \mathcal L[q] = \underbrace{\log p(x) - \mathcal L[q^*]}_{\text{approximation}} +
              \underbrace{\mathcal L[q^*] - \mathcal L[q]}_{\text{amortization}}, \qquad
              \underbrace{\log p(x) - \mathcal L_K[q]}_{\text{estimator}}

    :math:`q^*` has the family of the program's posterior, with the numbers that its encoder makes optimised for each
    datum by itself, from the encoder's output on. Both bounds are taken with the same noise.

    References:
        Inference suboptimality in variational autoencoders (Cremer et al., 2018), https://arxiv.org/abs/1801.03558

    Args:
        program: a Program whose encoders see x alone
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        evidence: log p(x): a callable ``(x, *context) -> (n,)``, or what ``marginal_bounds`` or ``log_likelihood``
            found on the same data; importance sampling from :math:`q^*` if None, whose error makes the gaps too small
        num_particles: K of the importance-weighted bound, and draws of each bound
        steps: of the optimisation
        rate: of Adam where it begins; it falls to zero
        seed: of all noise
        progress: show a progress bar

    Returns:
        The gaps: they print, export and plot.

    Raises:
        ValueError: the data do not fit the program, or its guide has no encoder of x alone.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = inference_gaps(toy.program, toy.draw(8), evidence=toy.log_evidence, steps=200)
        >>> abs(found.approximation.mean) < 0.01 < found.amortization.mean
        True
    """
    check_int("num_particles", num_particles, 2)
    check_int("steps", steps)
    whole = one_batch(program, x)
    batches = batches_of(program, whole)
    batches.batch_size = max(1, at_once(batches) // DRAWS)
    per_batch = []
    estimator = ELBO(num_particles=DRAWS)
    with (
        evaluating(program),
        pyro.validation_enabled(False),
        announcements_off(),
        progress_bar(total=steps * batches.steps, desc="inference gaps", unit="step", progress=progress) as bar,
    ):
        for batch in batches.epoch(0):
            local = Local(program, batch)
            with fork_rng(batch, seed):
                local.optimize(
                    lambda p, batch=batch: estimator.per_datum(p.model, p.guide, *batch), steps, rate, bar.update
                )
            per_batch.append(bounds(program, local, batch, num_particles, seed))
        amortized, best, weighted, weighted_noise, refined, refined_noise = (
            torch.cat(column, -1) for column in zip(*per_batch, strict=True)
        )
        value, error, name = log_evidence(evidence, whole, refined, refined_noise, num_particles)
    k = len(amortized)

    def mean_of(draws: Tensor) -> tuple[Tensor, Tensor]:
        return draws.mean(0), draws.std(0) / math.sqrt(k)

    def below(found: Tensor, noise: Tensor) -> Gap:
        return Gap(value - found, torch.hypot(error, noise))

    return InferenceGaps(
        below(*mean_of(best)),
        # with the same noise on both sides, whose errors cancel in part
        Gap(*mean_of(best - amortized)),
        below(*mean_of(amortized)),
        below(weighted, weighted_noise),
        num_particles,
        name,
    )


def bounds(program: Program, local: Local, batch: tuple[Tensor, ...], num_particles: int, seed: int) -> list[Tensor]:
    """Return log-weights at both posteriors, with the same noise, and their log-means with errors."""
    per_pass = max(1, at_once(batches_of(program, batch)) // len(batch[0]))
    drawn = []
    for owner in (program, local):
        with fork_rng(batch, seed + 1):
            parts = [
                log_weights(owner, batch, min(per_pass, num_particles - done))
                for done in range(0, num_particles, per_pass)
            ]
        drawn.append(torch.cat(parts).double().cpu())
    amortized, best = drawn
    return [amortized, best, *summarize(amortized)[:2], *summarize(best)[:2]]


def log_evidence(
    given: Evidence | None, batch: tuple[Tensor, ...], refined: Tensor, noise: Tensor, num_particles: int
) -> tuple[Tensor, Tensor, str]:
    """Return log p(x), its error and how it was found."""
    if given is None:
        return refined, noise, f"importance sampling from the optimised posterior, {num_particles:,} particles"
    if isinstance(given, (LogLikelihood, MarginalBounds)):
        value, error, name = given.per_datum, given.noise, given.source
    else:
        value = given(*batch).detach().double().cpu()
        error, name = torch.zeros_like(value), "exact"
    if value.shape != refined.shape:
        raise ValueError(f"evidence: expected log p(x) of each of {len(refined)} data, got shape {tuple(value.shape)}")
    return value.double(), error.double(), name
