"""What every evaluator returns: numbers that print, export and plot themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_vae.evaluation.table import aligned, latex, write_csv, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result"]


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
