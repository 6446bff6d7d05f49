"""The result of a comparison of estimators."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from pyro_vae.evaluation.result import Result, number, paired

__all__ = ["Comparison", "EstimatorRow", "GradientRow"]


@dataclass(frozen=True)
class GradientRow:
    """The gradient of one estimator with respect to the parameters of the guide, or of the model."""

    snr: float
    variance: float
    bias: float
    bias_error: float
    cosine: float
    own_bias: float
    own_bias_error: float


@dataclass(frozen=True)
class EstimatorRow:
    """One estimator. A number that does not exist is NaN, with the reason in ``missing``."""

    name: str
    num_particles: int
    bound: float
    bound_error: float
    gap: float
    gap_error: float
    guide: GradientRow
    model: GradientRow
    ess: float
    pareto_k: float
    milliseconds: float
    megabytes: float
    missing: dict[str, str] = field(default_factory=dict)

    def signal(self, group: str) -> float:
        """Return the signal-to-noise ratio of the mean of all gradients that one second allows."""
        return getattr(self, group).snr * math.sqrt(1000 / self.milliseconds)

    def flat(self) -> dict[str, Any]:
        """Return the row with flat names such as ``guide_snr``."""
        found: dict[str, Any] = {}
        for key, value in asdict(self).items():
            if key in ("guide", "model"):
                found |= {f"{key}_{k}": v for k, v in value.items()}
                found[f"{key}_variance_times_cost"] = value["variance"] * self.milliseconds
                found[f"{key}_signal"] = self.signal(key)
            else:
                found[key] = value
        found["missing"] = "; ".join(f"{k}: {v}" for k, v in self.missing.items())
        return found


@dataclass(frozen=True)
class Comparison(Result, plot="comparison"):
    """The result of :func:`compare_estimators`.

    Attributes:
        estimators: one row per estimator, in the given order
        reference: how log p(x) was found
        evidence: log p(x) in mean nats per example
        evidence_error: its standard error
        num_samples: sampled gradients of each estimator
        num_examples: size of the batch
        bounds: the sampled bounds of each estimator, of shape ``(num_samples,)``, with the same seeds
    """

    estimators: list[EstimatorRow]
    reference: str
    evidence: float
    evidence_error: float
    num_samples: int
    num_examples: int
    bounds: dict[str, Tensor]

    def __getitem__(self, name: str) -> EstimatorRow:
        """Return the row of an estimator."""
        found = {row.name: row for row in self.estimators}
        if name not in found:
            raise KeyError(f"{name!r}: expected one of {list(found)}")
        return found[name]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per estimator."""
        return [row.flat() for row in self.estimators]

    def summary(self) -> list[dict[str, Any]]:
        """Return the printed table of bounds, importance weights and costs."""
        return [
            {
                "estimator": r.name,
                "particles": r.num_particles,
                "bound": number(r.bound, r.bound_error),
                "gap": number(r.gap, r.gap_error),
                "ESS": number(r.ess),
                "Pareto k": number(r.pareto_k, digits=2),
                "ms/step": number(r.milliseconds),
                "MB/step": number(r.megabytes),
            }
            for r in self.estimators
        ]

    def gradients(self, group: str) -> list[dict[str, Any]]:
        """Return the printed table of gradients with respect to the parameters of the ``"guide"`` or ``"model"``."""
        return [
            {
                f"gradient, {group}": row.name,
                "SNR": number(g.snr),
                "variance": number(g.variance),
                "variance x ms": number(g.variance * row.milliseconds),
                "SNR in 1 s": number(row.signal(group)),
                "bias": number(g.bias, g.bias_error),
                "cosine": number(g.cosine),
                "own bias": number(g.own_bias, g.own_bias_error),
            }
            for row in self.estimators
            for g in [getattr(row, group)]
        ]

    def heading(self) -> str:
        """Return the evidence and the size of the comparison."""
        evidence = number(self.evidence, self.evidence_error, 6)
        return (
            f"evidence {evidence} nats per example ({self.reference}); {self.num_examples:,} examples, "
            f"{self.num_samples:,} sampled gradients"
        )

    def tables(self) -> list[list[dict[str, Any]]]:
        """Return the tables of values and gradients."""
        return [self.summary(), self.gradients("guide"), self.gradients("model")]

    def notes(self) -> str:
        """Return which estimators are best, and why numbers are missing."""
        best = [self.tightest(), *(self.strongest(group) for group in ("guide", "model"))]
        missing = dict.fromkeys(f"  {key}: {why}" for row in self.estimators for key, why in row.missing.items())
        lines = [line for line in best if line]
        return "\n".join([*lines, *(["not available", *missing] if missing else [])])

    def tightest(self) -> str:
        """Return which bound is the highest, with the paired difference from the next; empty for a single one."""
        known = [row for row in sorted(self.estimators, key=lambda row: -row.bound) if math.isfinite(row.bound)]
        others = [row for row in known[1:] if row.bound != known[0].bound]
        if not others:
            return ""
        first, second = known[0], others[0]
        above = number(*paired(self.bounds[first.name], self.bounds[second.name]))
        return f"highest bound: {first.name}, {above} nats above {second.name} (paired draws)"

    def strongest(self, group: str) -> str:
        """Return which estimator has the most signal for its cost; empty for a single one."""
        known = [row for row in self.estimators if math.isfinite(row.signal(group))]
        if len(known) < 2:
            return ""
        first, second = sorted(known, key=lambda row: -row.signal(group))[:2]
        share = first.signal(group) / second.signal(group)
        return f"most signal for its time, {group}: {first.name}, {share:.2f} times that of {second.name}"
