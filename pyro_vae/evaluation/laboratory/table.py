"""Rows of numbers as aligned text, CSV, JSON and LaTeX."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["aligned", "latex", "number", "write_csv", "write_json"]

Rows = Sequence[Mapping[str, Any]]


def number(value: float, error: float = math.nan, digits: int = 3) -> str:
    """Write a number, as precisely as its standard error is known where there is one; a dash where it is NaN.

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


def aligned(rows: Rows) -> str:
    """Return a table in columns, the first to the left and the others to the right."""
    lines = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )


def latex(rows: Rows) -> str:
    """Return a ``tabular`` environment with rules of the booktabs package."""
    lines = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
    body = [" & ".join(map(escape, line)) + r" \\" for line in lines]
    columns = "l" + "r" * (len(lines[0]) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
        + [r"\end{tabular}", ""]
    )


def escape(text: str) -> str:
    """Write a cell so that LaTeX prints it."""
    for char in "&%#_":
        text = text.replace(char, f"\\{char}")
    return text.replace("±", r"$\pm$")


def write_csv(rows: Rows, path: str | Path) -> None:
    """Write rows with all digits; what is not known is left empty."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: "" if missing(v) else v for k, v in row.items()} for row in rows)


def write_json(record: Mapping[str, Any], path: str | Path) -> None:
    """Write a record with all digits; what is not known is null, an infinity a string."""
    Path(path).write_text(json.dumps(plain(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if missing(value):
        return None
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def missing(value: Any) -> bool:
    """Whether a value is NaN."""
    return isinstance(value, float) and math.isnan(value)
