"""What the estimator laboratory found: tables that print, export and plot themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_vae.evaluation.laboratory.table import aligned, latex, number, write_csv, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "GradientRow", "Row"]


@dataclass(frozen=True)
class GradientRow:
    """The gradient of one estimator by the parameters of the guide, or by those of the model."""

    snr: float
    variance: float
    bias: float
    bias_error: float
    cosine: float
    own_bias: float
    own_bias_error: float


@dataclass(frozen=True)
class Row:
    """One estimator; NaN where a number cannot be had, with the reason in ``missing``."""

    name: str
    particles: int
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
        """Return the row as one level of names, such as ``guide_snr``."""
        found: dict[str, Any] = {}
        for key, value in asdict(self).items():
            found |= {f"{key}_{k}": v for k, v in value.items()} if key in ("guide", "model") else {key: value}
        found["missing"] = "; ".join(f"{k}: {v}" for k, v in self.missing.items())
        return found


@dataclass(frozen=True)
class Comparison:
    """The table of :func:`compare_estimators`: it prints, exports and plots itself.

    Attributes:
        rows: one an estimator, in the order in which they were given
        reference: how the evidence was found
        evidence: its value, in mean nats per datum
        evidence_error: its standard error
        draws: gradients drawn of each estimator
        data: size of the batch
    """

    rows: list[Row]
    reference: str
    evidence: float
    evidence_error: float
    draws: int
    data: int

    def __getitem__(self, name: str) -> Row:
        """Return the row of an estimator."""
        found = {row.name: row for row in self.rows}
        if name not in found:
            raise KeyError(f"{name!r}: expected one of {list(found)}")
        return found[name]

    def values(self) -> list[dict[str, Any]]:
        """Return what is shown of bounds, importance weights and costs."""
        return [
            {
                "estimator": r.name,
                "particles": r.particles,
                "bound": number(r.bound, r.bound_error),
                "gap": number(r.gap, r.gap_error),
                "ESS": number(r.ess),
                "Pareto k": number(r.pareto_k, digits=2),
                "ms/step": number(r.milliseconds),
                "MB/step": number(r.megabytes),
            }
            for r in self.rows
        ]

    def gradients(self, group: str) -> list[dict[str, Any]]:
        """Return what is shown of the gradient by the parameters of the ``"guide"`` or of the ``"model"``."""
        found = []
        for row in self.rows:
            g = getattr(row, group)
            found.append(
                {
                    f"gradient, {group}": row.name,
                    "SNR": number(g.snr),
                    "variance": number(g.variance),
                    "bias": number(g.bias, g.bias_error),
                    "cosine": number(g.cosine),
                    "own bias": number(g.own_bias, g.own_bias_error),
                }
            )
        return found

    def __str__(self) -> str:
        evidence = number(self.evidence, self.evidence_error, 6)
        head = f"evidence {evidence} nats per datum ({self.reference}); {self.data:,} data, {self.draws:,} draws"
        parts = [head, aligned(self.values()), *(aligned(self.gradients(group)) for group in ("guide", "model"))]
        notes = dict.fromkeys(f"{key}: {why}" for row in self.rows for key, why in row.missing.items())
        return "\n\n".join(
            [*parts, *(["not available\n" + "\n".join(f"  {note}" for note in notes)] if notes else [])]
        )

    def to_csv(self, path: str | Path) -> None:
        """Write one line an estimator with all digits."""
        write_csv([row.flat() for row in self.rows], path)

    def to_json(self, path: str | Path) -> None:
        """Write the table with all digits, and what it was compared with."""
        write_json(asdict(self), path)

    def to_latex(self, path: str | Path) -> None:
        """Write the tables as they are printed, for LaTeX with the package booktabs."""
        tables = [self.values(), self.gradients("guide"), self.gradients("model")]
        Path(path).write_text("\n".join(map(latex, tables)), encoding="utf-8")

    def plot(self) -> Figure:
        """Draw gap, signal-to-noise ratios and cost of each estimator."""
        from pyro_vae.plots import comparison

        return comparison(self)
