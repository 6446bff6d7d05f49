"""Shared by the benchmarks: rows saved as JSON lines, and mean and standard error over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Results:
    """The rows of a benchmark in a file of JSON lines; a resumed run does not measure finished rows again.

    Args:
        path: the file, created with its folder if needed
        settings: settings that a row must have been measured with
    """

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path, self.settings = path, settings
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [row for row in map(json.loads, lines) if matches(row, settings)]

    def has(self, **key: Any) -> bool:
        """Return whether there is a row with these entries."""
        return any(matches(row, key) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Save a row, and print it."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"# {row}", flush=True)


def matches(row: dict[str, Any], key: dict[str, Any]) -> bool:
    """Return whether a row has these entries."""
    return all(row.get(name) == value for name, value in key.items())


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard error over the seeds.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        (2.0, 0.5773502691896258)
    """
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error


def cell(values: Sequence[float | None], digits: int = 2) -> str:
    """Return mean and standard error of the values that are not None, as a table cell.

    Example:
        >>> cell([1.0, 2.0, None, 3.0]), cell([None]), cell([1.0])
        ('2.00 ± 0.58', '', '1.00')
    """
    known = [v for v in values if v is not None]
    if len(known) == 1:
        return f"{known[0]:.{digits}f}"
    return "{:.{d}f} ± {:.{d}f}".format(*spread(known), d=digits) if known else ""
