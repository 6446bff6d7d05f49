"""The base class of all results: tables that print, export and plot."""

from __future__ import annotations

import csv
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PerExample", "Result", "aligned", "latex", "number", "paired"]

Rows = Sequence[Mapping[str, Any]]


class Result(ABC):
    """What an evaluation returns: it prints as tables, exports to CSV, JSON and LaTeX, and plots itself.

    A subclass is a dataclass and names the function of :mod:`pyro_vae.plots` that plots it.

    Example:
        >>> @dataclass(frozen=True)
        ... class Means(Result, plot="scores"):
        ...     means: dict[str, float]
        ...
        ...     def rows(self):
        ...         return [{"method": name, "mean": value} for name, value in self.means.items()]
        >>> print(Means({"first": 1.0, "second": 0.123456}))
        method     mean
        first         1
        second  0.12346
    """

    _plot: ClassVar[str]

    def __init_subclass__(cls, plot: str) -> None:
        cls._plot = plot

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return all numbers with all digits, as they are exported."""

    def summary(self) -> list[dict[str, Any]]:
        """Return the rows as they are printed."""
        return [{k: v if isinstance(v, str) else number(v, digits=5) for k, v in row.items()} for row in self.rows()]

    def plot(self) -> Figure:
        """Plot the result."""
        from pyro_vae import plots

        return getattr(plots, self._plot)(self)

    def heading(self) -> str:
        """Return the text above the printed tables."""
        return ""

    def tables(self) -> list[list[dict[str, Any]]]:
        """Return all printed tables."""
        return [self.summary()]

    def notes(self) -> str:
        """Return the text below the printed tables."""
        return ""

    def __str__(self) -> str:
        return "\n\n".join(part for part in (self.heading(), *map(aligned, self.tables()), self.notes()) if part)

    def to_dict(self) -> dict[str, Any]:
        """Return the name of the class, its single numbers and texts, and the rows."""
        single = {name: value for name, value in vars(self).items() if isinstance(value, (int, float, str))}
        return {"evaluation": type(self).__name__, **single, "rows": self.rows()}

    def to_csv(self, path: str | Path) -> None:
        """Write the rows with all digits; NaN is left empty."""
        rows = self.rows()
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: "" if is_nan(v) else v for k, v in row.items()} for row in rows)

    def to_json(self, path: str | Path) -> None:
        """Write :meth:`to_dict` with all digits; NaN becomes null, infinity a string."""
        text = json.dumps(plain(self.to_dict()), indent=2, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def to_latex(self, path: str | Path) -> None:
        """Write the printed tables for LaTeX with the package booktabs."""
        Path(path).write_text("\n".join(map(latex, self.tables())), encoding="utf-8")


@dataclass(frozen=True)
class PerExample:
    """Estimates for single examples, in nats.

    Attributes:
        per_example: the estimate for each example, of shape ``(n,)``
        per_example_error: its Monte Carlo standard error, of shape ``(n,)``
        weights: the weights of the examples in the mean, of shape ``(n,)``; None for equal weights
    """

    per_example: Tensor
    per_example_error: Tensor
    weights: Tensor | None = field(default=None, kw_only=True)

    @property
    def shares(self) -> Tensor:
        """The share of each example in the mean, of shape ``(n,)``, of sum 1."""
        weights = torch.ones_like(self.per_example) if self.weights is None else self.weights
        return (weights / weights.sum()).to(self.per_example)

    def used(self, values: Tensor) -> Tensor:
        """Return values of the examples with 0 for those of weight 0, which may be infinite."""
        return values.where(self.shares > 0, 0)

    @property
    def mean(self) -> float:
        """Mean over the examples, in nats per example."""
        return float(self.per_example.mean() if self.weights is None else self.shares @ self.used(self.per_example))

    @property
    def std_error(self) -> float:
        r"""Standard error of the mean as an estimate for the population of the examples.

        With shares :math:`v_n` of the examples and mean :math:`\mu` it is

        .. math:: \sqrt{\frac{s_2}{s_2 - 2 s_3 + s_2^2} \sum_n v_n^2 (\ell_n - \mu)^2}, \qquad s_k = \sum_n v_n^k,

        whose square is unbiased for independent examples of one variance. NaN for one example.
        """
        v = self.shares
        second, third = float(v.square().sum()), float(v.pow(3).sum())
        free = 1 - 2 * third / second + second
        if free <= 1e-12:
            return math.nan
        return math.sqrt(float(v.square() @ self.used(self.per_example - self.mean).square()) / free)

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the mean for these examples: how far another seed would change it."""
        return float((self.shares * self.used(self.per_example_error)).square().sum().sqrt())

    def __float__(self) -> float:
        return self.mean


def by_example(**columns: Tensor) -> list[dict[str, Any]]:
    """Return one row per example from columns of shape ``(n,)``."""
    values = torch.stack([column.double() for column in columns.values()], 1).tolist()
    return [{"example": i, **dict(zip(columns, row, strict=True))} for i, row in enumerate(values)]


def paired(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Return the mean of paired differences and its standard error.

    Example:
        >>> number(*paired(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 1.5])))
        '1.00 ± 0.29'
    """
    apart = (one - other).double()
    return float(apart.mean()), float(apart.std()) / math.sqrt(len(apart))


def number(value: float, error: float = math.nan, digits: int = 3) -> str:
    """Format a number to the precision of its standard error if there is one; NaN is a dash.

    Example:
        >>> number(1.23456), number(-97.1234, 0.0321), number(float("nan")), number(123456.0)
        ('1.23', '-97.123 ± 0.032', '-', '1.23e+05')
    """
    if math.isnan(value):
        return "-"
    if math.isfinite(error) and error > 0:
        places = min(6, max(0, 1 - math.floor(math.log10(error))))
        if places < 6 or error > 1e-6:
            return f"{value:.{places}f} ± {error:.{places}f}"
    return f"{value:.{digits}g}"


def cells(rows: Rows) -> list[list[str]]:
    """Return the header and the rows of a table as text."""
    return [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]


def aligned(rows: Rows) -> str:
    """Return a table as text: the first column aligned left, the others right."""
    lines = cells(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )


def latex(rows: Rows) -> str:
    """Return a LaTeX ``tabular`` with the rules of the package booktabs."""
    head, *body = [" & ".join(map(escape, line)) + r" \\" for line in cells(rows)]
    columns = "l" + "r" * (len(rows[0]) - 1)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def escape(text: str) -> str:
    """Escape a cell for LaTeX."""
    for char in "&%#_":
        text = text.replace(char, f"\\{char}")
    return text.replace("±", r"$\pm$")


def plain(value: Any) -> Any:
    """Return a value as JSON represents it."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if is_nan(value):
        return None
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def is_nan(value: Any) -> bool:
    """Return whether a value is NaN."""
    return isinstance(value, float) and math.isnan(value)
