"""Files of data: arrays as .npy and .npz, tables as .csv, .npz and .npy."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.tables import Column

__all__ = ["ENDINGS", "encode", "ending", "read", "typed"]

ENDINGS = (".npy", ".npz", ".csv")
#: By which numpy files begin.
MAGIC = {".npy": b"\x93NUMPY", ".npz": b"PK\x03\x04"}
#: Cells without a value, in lower case.
HOLES = {"", "nan", "na", "?"}


def ending(path: str | Path) -> str:
    """Return how the name of a file ends, or say that it is none of the known ways."""
    found = Path(path).suffix.lower()
    if found not in ENDINGS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(ENDINGS)}")
    return found


def read(path: str | Path) -> np.ndarray | dict[str, np.ndarray]:
    """Read a file of data.

    Args:
        path: its ending says what it is. ``.npy``: an array whose rows are data, or a structured array, which is a
            table. ``.npz``: several arrays. ``.csv``: UTF-8 text with the names of the columns in the first line and
            commas, semicolons or tabs between cells

    Returns:
        An array, or a dict of arrays by name: those of an .npz, or the columns of a table. Cells of a .csv are strings
        and None where they are empty, ``NaN``, ``NA`` or ``?``; see :func:`typed`.

    Raises:
        ValueError: the file is empty, or not what its ending says.
        OSError: it cannot be read.
    """
    kind, path = ending(path), Path(path)
    with path.open("rb") as file:
        head = file.read(6)
    if not head:
        raise ValueError(f"{path}: the file is empty")
    if kind == ".csv":
        return table(path)
    if not head.startswith(MAGIC[kind]):
        raise ValueError(f"{path}: not an {kind} file, although its name ends so: it begins with {head!r}")
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            found = found if kind == ".npy" else {name: found[name] for name in found.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects, which are not read" if "allow_pickle" in str(error) else f"damaged: {error}"
        raise ValueError(f"{path}: cannot be read: {reason}") from error
    if isinstance(found, np.ndarray) and found.dtype.names:
        return {name: found[name] for name in found.dtype.names}
    return found


def table(path: Path) -> dict[str, np.ndarray]:
    """Read the cells of a .csv file by column."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a .csv file, although its name ends so: it is no UTF-8 text") from error
    first = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count), skipinitialspace=True, strict=True)
    try:
        names = next(lines)
        check_names(path, names)
        rows = []
        for row in lines:
            if row == [] and len(names) > 1:
                continue
            rows.append(row or [""])
            if len(rows[-1]) != len(names):
                raise ValueError(
                    f"{path}: line {lines.line_num} has {len(row)} cells, expected {len(names)}, one a column"
                )
    except csv.Error as error:
        raise ValueError(f"{path}: not a .csv file: line {lines.line_num}: {error}") from error
    if not rows:
        raise ValueError(f"{path}: no rows below the names of the columns")
    cells = zip(*rows, strict=True)
    return {name: np.array([cell_of(c) for c in cs], object) for name, cs in zip(names, cells, strict=True)}


def check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse a first line that holds data, or names twice."""
    plain = names == [str(i) for i in range(len(names))]  # as pandas names the columns of an array
    if not all(name.strip() for name in names) or (not plain and any(number(name) is not None for name in names)):
        raise ValueError(
            f"{path}: the first line has to hold the names of the columns, got {', '.join(map(repr, names[:5]))}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: columns of the same name: {', '.join(twice)}")


def cell_of(text: str) -> str | None:
    """Return a cell, None for one without a value."""
    text = text.strip()
    return None if text.lower() in HOLES else text


def number(text: str) -> int | float | None:
    """Return the number that a cell holds, None for other text."""
    if "_" in text:  # which Python takes in a number
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None


def typed(cells: np.ndarray, column: Column | None = None) -> np.ndarray:
    """Return the cells of a .csv as numbers where all are, and as they are otherwise.

    Args:
        cells: strings and None, of shape ``(n,)``; of arrays of text only empty ones are changed, to None
        column: what is known of the column; one with text for labels keeps text

    Returns:
        Whole numbers, floats with NaN, or objects with None where a cell has no value.

    Example:
        >>> typed(np.array(["1", None], object)), typed(np.array(["1", "2.5"], object))
        (array([1, None], dtype=object), array([1. , 2.5]))
    """
    if cells.dtype.kind == "U":
        return np.where(cells == "", None, cells.astype(object))
    labels = getattr(column, "values", ())
    if cells.dtype != object or any(isinstance(label, str) for label in labels):
        return cells
    found = [number(c) if isinstance(c, str) else c for c in cells]
    if any(f is None and c is not None for f, c in zip(found, cells, strict=True)):
        return cells
    if any(isinstance(f, float) for f in found):
        return np.array([np.nan if f is None else f for f in found], float)
    whole = np.array(found, object)
    return whole if None in found else whole.astype(np.int64)


def encode(kind: str, values: np.ndarray | dict[str, np.ndarray]) -> bytes:
    """Return the bytes of a file.

    Args:
        kind: ``".npy"``, ``".npz"`` or ``".csv"``
        values: an array (called ``x`` in an .npz), or a table as a dict of columns (one array each in an .npz, a
            structured array as .npy)
    """
    file = io.BytesIO()
    if kind == ".csv":
        columns = values if isinstance(values, dict) else flat(values)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        # astype(str) writes a float32 by as many digits as it has
        writer.writerows(zip(*(c if c.dtype == object else c.astype(str) for c in columns.values()), strict=True))
        return text.getvalue().encode()
    if isinstance(values, dict):
        values = {name: plain(c) for name, c in values.items()}
    if kind == ".npy":
        np.save(file, structured(values) if isinstance(values, dict) else values, allow_pickle=False)
        return file.getvalue()
    with zipfile.ZipFile(file, "w") as archive:  # np.savez takes no column called "file"
        for name, array in (values if isinstance(values, dict) else {"x": values}).items():
            archive.writestr(f"{name}.npy", encode(".npy", array))
    return file.getvalue()


def plain(cells: np.ndarray) -> np.ndarray:
    """Return cells as numbers or text, with NaN or empty text where there is no value."""
    if cells.dtype != object:
        return cells
    hole = "" if any(isinstance(c, str) for c in cells) else np.nan
    return np.array([hole if c is None else c for c in cells.tolist()])


def flat(values: np.ndarray) -> dict[str, Any]:
    """Return an array as columns, one an entry of a datum, called by their numbers."""
    rows = values.reshape(len(values), -1)
    return {str(i): rows[:, i] for i in range(rows.shape[1])}


def structured(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return columns as one structured array."""
    found = np.empty(len(next(iter(columns.values()))), [(name, c.dtype) for name, c in columns.items()])
    for name, c in columns.items():
        found[name] = c
    return found
