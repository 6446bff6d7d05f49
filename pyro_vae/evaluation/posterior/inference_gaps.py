"""Inference gaps: how much the posterior family, the encoder and the number of particles cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.estimators import ELBO
from pyro_vae.evaluation.likelihood.importance_sampling import LogLikelihood, log_weights, summarize
from pyro_vae.evaluation.likelihood.marginal_bounds import MarginalBounds
from pyro_vae.evaluation.over import one_batch, over
from pyro_vae.evaluation.posterior.local_guide import LocalGuide
from pyro_vae.evaluation.result import PerExample, Result, by_example, number
from pyro_vae.programs.primitives import announcements_off
from pyro_vae.programs.program import Program, evaluating

__all__ = ["InferenceGaps", "inference_gaps"]

Evidence = Callable[..., Tensor] | LogLikelihood | MarginalBounds

#: Particles of the bound in each step of the optimization.
PARTICLES = 16


@dataclass(frozen=True)
class InferenceGaps(Result, plot="inference_gaps"):
    """The gaps of :func:`inference_gaps`, in nats per example.

    Attributes:
        approximation: log p(x) minus the bound at the best posterior of the family
        amortization: that bound minus the bound at the encoder's posterior
        inference: the sum of the two
        estimator: log p(x) minus the importance-weighted bound at the encoder's posterior
        num_particles: particles of the importance-weighted bound
        evidence: how log p(x) was found
    """

    approximation: PerExample
    amortization: PerExample
    inference: PerExample
    estimator: PerExample
    num_particles: int
    evidence: str

    @property
    def gaps(self) -> dict[str, PerExample]:
        """The gaps by name."""
        return {name: getattr(self, name) for name in ("approximation", "amortization", "inference", "estimator")}

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per example."""
        errors = {f"{name}_error": gap.per_example_error for name, gap in self.gaps.items()}
        return by_example(**{name: gap.per_example for name, gap in self.gaps.items()}, **errors)

    def summary(self) -> list[dict[str, Any]]:
        """Return one row per gap."""
        meaning = {
            "approximation": "log p(x) - L[q*]: the family of q",
            "amortization": "L[q*] - L[q]: the encoder",
            "inference": "log p(x) - L[q]: both",
            "estimator": f"log p(x) - L_{self.num_particles}[q]: importance weights",
        }
        return [
            {
                "gap": name,
                "nats per example": number(gap.mean, gap.std_error),
                "Monte Carlo error": number(gap.monte_carlo_error),
                "definition": meaning[name],
            }
            for name, gap in self.gaps.items()
        ]

    def heading(self) -> str:
        """Return the number of examples and how log p(x) was found."""
        return f"inference gaps of {len(self.inference.per_example):,} examples; log p(x): {self.evidence}"


@in_turn
def inference_gaps(
    program: Program,
    x: Any,
    *,
    evidence: Evidence | None = None,
    num_particles: int = 1000,
    num_steps: int = 500,
    learning_rate: float = 0.05,
    seed: int = 0,
    progress: bool = True,
) -> InferenceGaps:
    r"""Split the gap between log p(x) and the bound into the losses of family, encoder and particles.

    .. math:: \log p(x) - \mathcal L[q] = \underbrace{\log p(x) - \mathcal L[q^*]}_{\text{approximation}} +
              \underbrace{\mathcal L[q^*] - \mathcal L[q]}_{\text{amortization}}, \qquad
              \underbrace{\log p(x) - \mathcal L_K[q]}_{\text{estimator}}

    :math:`q^*` has the family of the program's posterior. The outputs of its encoder are optimized for each example
    separately, starting from the encoder's own. Both bounds use the same random numbers.

    References:
        Inference suboptimality in variational autoencoders (Cremer et al., 2018), https://arxiv.org/abs/1801.03558

    Args:
        program: a Program with encoders that take x alone
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        evidence: log p(x): a callable ``(x, *context) -> (n,)``, or the result of ``marginal_bounds`` or
            ``log_likelihood`` on the same data. If None, importance sampling from :math:`q^*` estimates it; its error
            makes the gaps too small.
        num_particles: K of the importance-weighted bound, and samples of each bound
        num_steps: steps of the optimization
        learning_rate: initial learning rate of Adam; it falls to zero
        seed: random seed
        progress: show a progress bar

    Returns:
        The gaps.

    Raises:
        ValueError: the data do not fit the program, or its guide has no encoder of x alone.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = inference_gaps(toy.program, toy.draw(8), evidence=toy.log_evidence, num_steps=200)
        >>> abs(found.approximation.mean) < 0.01 < found.amortization.mean
        True
    """
    num_particles = check_int("num_particles", num_particles, 2)
    num_steps = check_int("num_steps", num_steps)
    whole, elbo = one_batch(program, x, seed=seed), ELBO(num_particles=PARTICLES)
    known = None if evidence is None else log_evidence(program, evidence, whole)

    def weigh(*batch: Tensor) -> list[Tensor]:
        local = LocalGuide(program, batch)
        with fork_rng(batch, seed):
            local.optimize(
                lambda p: elbo.per_datum(p.model, p.guide, *batch), num_steps, learning_rate, progress=progress
            )
        found = []
        for owner in (program, local):
            with fork_rng(batch, seed + 1):
                found.append(log_weights(owner, batch, num_particles).double().T)
        return found

    with pyro.validation_enabled(False), announcements_off():
        options: dict[str, Any] = {"num_particles": PARTICLES, "desc": "inference gaps", "progress": progress}
        amortized, best = (log_w.T for log_w in over(program, whole, weigh, **options))
    optimized = f"importance sampling from the optimized posterior, {num_particles:,} particles"
    value, error, name = known or (*summarize(best)[:2], optimized)

    def mean(samples: Tensor) -> tuple[Tensor, Tensor]:
        return samples.mean(0), samples.std(0) / math.sqrt(num_particles)

    def below(bound: Tensor, bound_error: Tensor) -> PerExample:
        return PerExample(value - bound, torch.hypot(error, bound_error))

    return InferenceGaps(
        below(*mean(best)),
        # the errors of the two cancel in part
        PerExample(*mean(best - amortized)),
        below(*mean(amortized)),
        below(*summarize(amortized)[:2]),
        num_particles,
        name,
    )


def log_evidence(program: Program, given: Evidence, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, str]:
    """Return log p(x), its error and how it was found."""
    if isinstance(given, (LogLikelihood, MarginalBounds)):
        value, error, name = given.per_example, given.per_example_error, given.source
    else:
        with evaluating(program):
            value = given(*batch).double().cpu()
        error, name = torch.zeros_like(value), "exact"
    if value.shape != batch[0].shape[:1]:
        raise ValueError(
            f"evidence: expected log p(x) of each of {len(batch[0])} examples, got shape {tuple(value.shape)}"
        )
    return value.double(), error.double(), name
