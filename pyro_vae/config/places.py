"""Errors about values with the columns and rows of the file from which they were read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from pyro_vae.data import files
from pyro_vae.data.tables import Column

__all__ = ["in_file", "in_rows"]


def in_file(path: str, text: str) -> str:
    """Return an error of ``pyro_vae.data`` with the options of the command and the lines of the file."""
    text = re.sub(r"^keep_(empty|index): ", r"keep-\1: ", text)
    text = re.sub(r"(^|: )types: ", r"\1columns: ", re.sub(r"(^|: )leave_out: ", r"\1leave-out: ", text))
    return re.sub(r"\bin row (\d+)", lambda found: f"in {files.place(path, int(found[1]))}", text)


def in_rows(path: str, columns: Sequence[Column], text: str, rows: Tensor | None = None) -> str:
    """Return an error about entries ``x[row, ...]`` with the names of columns and the lines of the file.

    Args:
        path: the file
        columns: columns of a table; none for an array
        text: the error
        rows: numbers of the rows in the file; all in their order if None
    """

    def place(found: re.Match[str]) -> str:
        row, *entry = map(int, found[1].split(", "))
        row = row if rows is None else int(rows[row])
        if not columns:
            return f"x[{', '.join(map(str, [row, *entry]))}]"
        return f"{columns[entry[0]].name if entry else 'the row'} in {files.place(path, row)}"

    return re.sub(r"\bx\[(\d+(?:, \d+)*)\]", place, text)
