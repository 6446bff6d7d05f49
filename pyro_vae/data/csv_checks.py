"""Checks of the text of a .csv file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_vae.data.tables.cells import parse
from pyro_vae.data.tables.frames import some
from pyro_vae.data.tables.values import is_blank

__all__ = ["check_commas", "check_names", "check_spaces"]

#: Numbers in which the comma can be a decimal comma or a separator of thousands.
EITHER = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
#: Numbers in which the point can be a decimal point or a separator of thousands, and those with a decimal comma.
POINT, DECIMAL_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}"), re.compile(r"[+-]?\d+,\d{1,2}")


def check_spaces(path: str | Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Raise if spaces seem to separate the cells: one column, as many words in each line, and numbers among them."""
    first = [cell.split() for cell in (*names, *rows[0])]
    if len(names) == 1 and len({len(row[0].split()) for row in (names, *rows)}) == 1 < len(first[0]):
        if any(parse(word) is not None for word in first[1]):
            raise ValueError(
                f"{path}: expected commas, semicolons, tabs or vertical bars between cells, got spaces in line 1: "
                f"{names[0]!r}. Replace them"
            )


def check_commas(path: str | Path, columns: dict[str, np.ndarray]) -> None:
    """Raise if every comma in a column can be a decimal comma or a separator of thousands, or every point likewise."""
    cells = {name: [cell for cell in column.tolist() if not is_blank(cell)] for name, column in columns.items()}
    comma = next((name for name, present in cells.items() if any(map(DECIMAL_COMMA.fullmatch, present))), None)
    for name, present in cells.items():
        points = [cell for cell in present if "." in cell]
        if comma is not None and points and all(map(POINT.fullmatch, points)):
            raise ValueError(
                f"{path}: column {name!r}: expected numbers, got {points[0]!r}, which may be "
                f"{points[0].replace('.', '')}, as column {comma!r} has decimal commas. Write it without the point, "
                "or the file with decimal points"
            )
        if present and all(EITHER.fullmatch(cell) for cell in present):
            thousands, decimals = present[0].replace(",", ""), present[0].replace(",", ".")
            raise ValueError(
                f"{path}: column {name!r}: expected numbers, got {present[0]!r}, which is {thousands} or {decimals}. "
                "Write it without the comma"
            )


def check_names(path: str | Path, names: Sequence[str]) -> None:
    """Raise if the first line holds data, or a name twice."""
    plain = names == [str(i) for i in range(len(names))]  # as pandas names the columns of an array
    # one column may have no name, such as the index of pandas
    nameless = sum(not name for name in names)
    several = nameless > 1 or nameless == len(names)
    if not names or several or (not plain and any(parse(name) is not None for name in names)):
        got = ", ".join(map(repr, names[:5])) or "none"
        raise ValueError(f"{path}: expected the names of the columns in the first line, got {got}. Name all columns")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(
            f"{path}: expected columns of different names, got several of the name {some(twice)}. Rename them"
        )
