"""The result of a comparison of estimators."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pyro_vae.evaluation.result import Result, number

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

    def flat(self) -> dict[str, Any]:
        """Return the row with flat names such as ``guide_snr``."""
        found: dict[str, Any] = {}
        for key, value in asdict(self).items():
            found |= {f"{key}_{k}": v for k, v in value.items()} if key in ("guide", "model") else {key: value}
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
    """

    estimators: list[EstimatorRow]
    reference: str
    evidence: float
    evidence_error: float
    num_samples: int
    num_examples: int

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
        """Return why numbers are missing."""
        notes = dict.fromkeys(f"  {key}: {why}" for row in self.estimators for key, why in row.missing.items())
        return "\n".join(["not available", *notes]) if notes else ""
