"""What every evaluator returns: numbers that print, export and plot themselves."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyro_vae.evaluation.laboratory.table import aligned, latex, write_csv, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PerExample", "Result"]


class Result(ABC):
    """What an evaluator found."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return all that was found with all digits, for the files."""

    @abstractmethod
    def summary(self) -> list[dict[str, Any]]:
        """Return the table that is printed, for people."""

    @abstractmethod
    def plot(self) -> Figure:
        """Draw what was found."""

    def __str__(self) -> str:
        return aligned(self.summary())

    def to_csv(self, path: str | Path) -> None:
        """Write the rows with all digits."""
        write_csv(self.rows(), path)

    def to_json(self, path: str | Path) -> None:
        """Write the rows with all digits."""
        write_json({"evaluation": type(self).__name__, "rows": self.rows()}, path)

    def to_latex(self, path: str | Path) -> None:
        """Write the printed table for LaTeX with the package booktabs."""
        Path(path).write_text(latex(self.summary()), encoding="utf-8")


class PerExample:
    """What is known of each datum with the noise of its draws: the mean over the data, and its two errors.

    Attributes:
        per_datum: in nats, of shape ``(n,)``
        noise: Monte Carlo standard error of each entry, of shape ``(n,)``
    """

    per_datum: Tensor
    noise: Tensor

    @property
    def mean(self) -> float:
        """Mean over the data, in nats per datum."""
        return float(self.per_datum.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean as an estimate for the population the data were drawn from."""
        n = len(self.per_datum)
        return float(self.per_datum.std() / math.sqrt(n)) if n > 1 else math.nan

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the mean from the draws alone: what another seed would change."""
        return float(self.noise.square().sum().sqrt() / len(self.noise))
