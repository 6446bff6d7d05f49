"""Read and write data files: arrays as .npy and .npz, tables as .csv, .npz and .npy."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.csv_checks import check_commas, check_names, check_spaces
from pyro_vae.data.tables.cells import parse
from pyro_vae.data.tables.values import each, objects, plain, unread

__all__ = ["ENDINGS", "Values", "encode", "ending", "parse_csv", "place", "read", "to_columns", "typed"]

#: The content of a file: an array whose rows are examples, or arrays by name.
Values = np.ndarray | dict[str, np.ndarray]

ENDINGS = (".npy", ".npz", ".csv")
#: Between the cells of a .csv.
DELIMITERS = ",;\t|"
#: The first bytes of numpy's files.
MAGIC = {".npy": b"\x93NUMPY", ".npz": b"PK\x03\x04"}


def ending(path: str | Path, endings: Sequence[str] = ENDINGS) -> str:
    """Return the ending of a file name, or raise a ValueError if it is none of ``endings``."""
    found = Path(path).suffix.lower()
    if found not in endings:
        raise ValueError(f"{path}: expected a file name that ends in {', '.join(endings)}")
    return found


def read(path: str | Path, *, mapped: bool = False) -> Values:
    """Read a data file.

    Args:
        path: a file. ``.npy``: an array whose rows are examples, or a structured array, which is a table. ``.npz``:
            several arrays. ``.csv``: UTF-8 text, or UTF-16 with a byte order mark, with the names of the columns in
            the first line and commas, semicolons, tabs or vertical bars between cells. None of them has masks: write
            NaN, or an empty cell, where a value is missing
        mapped: whether an ``.npy`` is memory-mapped instead of read

    Returns:
        An array, or a dict of arrays by name: those of an .npz, or the columns of a table. Cells of a .csv are text.

    Raises:
        ValueError: the file is empty, damaged, or not of the kind that its ending says.
        OSError: it cannot be read.
    """
    kind, path = ending(path), Path(path)
    with path.open("rb") as file:
        head = file.read(6)
    if not head:
        raise ValueError(f"{path}: the file is empty")
    if kind == ".csv":
        return parse_csv(str(path), path.read_bytes())
    if not head.startswith(MAGIC[kind]):
        raise ValueError(f"{path}: expected an {kind} file, got one that begins with {head!r}")
    try:
        with path.open("rb") as file:
            found = np.load(path if mapped else file, mmap_mode="r" if mapped else None, allow_pickle=False)
            found = found if kind == ".npy" else {name: found[name] for name in found.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects, which are not read" if "allow_pickle" in str(error) else f"damaged: {error}"
        raise ValueError(f"{path}: cannot be read: {reason}") from error
    if isinstance(found, np.ndarray) and found.dtype.names:
        return {name: found[name] for name in found.dtype.names}
    return found


def parse_csv(path: str | Path, content: bytes) -> dict[str, np.ndarray]:
    """Return the cells in the bytes of a .csv file by column; ``path`` is for error messages."""
    if not content:
        raise ValueError(f"{path}: the file is empty")
    lines, delimiter = lines_of(path, content)
    try:
        names = [name.strip() for name in next((row for row in lines if row), [])]
        check_names(path, names)
        rows: list[list[str]] = []
        for row in lines:
            if row == [] and len(names) > 1:
                continue
            rows.append(row or [""])
            if len(rows[-1]) != len(names):
                raise ValueError(
                    f"{path}: expected {len(names)} cells, one per column, got {len(row)} in line {lines.line_num}"
                )
    except csv.Error as error:
        raise ValueError(f"{path}: not a .csv file: line {lines.line_num}: {error}") from error
    if not rows:
        raise ValueError(f"{path}: expected rows below the names of the columns, got none")
    columns = zip(names, zip(*rows, strict=True), strict=True)
    cells = {name: objects(cell.strip() for cell in column) for name, column in columns}
    if delimiter != ",":
        check_commas(path, cells)
    check_spaces(path, names, rows)
    return cells


def lines_of(path: str | Path, content: bytes) -> tuple[Any, str]:
    """Return the reader of the lines of a .csv file, and what is between its cells."""
    marked = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        if "\0" in text:
            raise ValueError("a byte of zero")
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a .csv file of UTF-8 text, got other bytes ({error}). Save it as CSV with the encoding "
            "UTF-8"
        ) from error
    first = re.sub('"[^"]*"', "", text.lstrip().partition("\n")[0])
    delimiter = max(DELIMITERS, key=first.count)
    return csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True), delimiter


def place(path: str | Path, row: int) -> str:
    """Return where a row of a table is in its file, in words: a .csv has lines, counted from 1."""
    if Path(path).suffix.lower() not in (".csv", ".tsv"):
        return f"row {row} (counted from 0)"
    lines, _ = lines_of(path, Path(path).read_bytes())
    names = next(found for found in lines if found)
    starts = [start for start, found in numbered(lines) if found or len(names) == 1]
    return f"line {starts[row]}"


def numbered(lines: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line, counted from 1, and the cells of each row."""
    start = lines.line_num + 1
    for row in lines:
        yield start, row
        start = lines.line_num + 1


def typed(cells: np.ndarray) -> np.ndarray:
    """Return text that is a number in each row as numbers, all else unchanged.

    Args:
        cells: text and None, of shape ``(n,)``

    Returns:
        Integers, floats with NaN, or objects with None for missing values.

    Example:
        >>> typed(np.array(["1", None], object)), typed(np.array(["1", "2.5"], object))
        (array([1, None], dtype=object), array([1. , 2.5]))
    """
    found = plain(cells)
    if found.dtype != object:
        return found
    numbers = each(parse, found.tolist(), lambda value: value)
    return found if unread(found, numbers).any() else plain(numbers)


def encode(kind: str, values: Values) -> bytes:
    """Return the bytes of a file.

    Args:
        kind: ``".npy"``, ``".npz"`` or ``".csv"``
        values: an array (named ``x`` in an .npz), or a table as a dict of columns (one array each in an .npz, a
            structured array as .npy)
    """
    file = io.BytesIO()
    if kind == ".csv":
        columns = values if isinstance(values, dict) else to_columns(values)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        # astype(str) writes a float32 with the digits that it has
        writer.writerows(zip(*(c if c.dtype == object else c.astype(str) for c in columns.values()), strict=True))
        return text.getvalue().encode()
    if isinstance(values, dict):
        values = {name: without_none(cells) for name, cells in values.items()}
    if kind == ".npy":
        np.save(file, structured(values) if isinstance(values, dict) else values, allow_pickle=False)
        return file.getvalue()
    with zipfile.ZipFile(file, "w") as archive:  # np.savez accepts no column named "file"
        for name, array in (values if isinstance(values, dict) else {"x": values}).items():
            archive.writestr(f"{name}.npy", encode(".npy", array))
    return file.getvalue()


def without_none(cells: np.ndarray) -> np.ndarray:
    """Return cells as numbers or text, with NaN or empty text in place of None."""
    cells = typed(cells) if cells.dtype == object else cells
    if cells.dtype != object:
        return cells
    empty = "" if any(isinstance(c, str) for c in cells) else np.nan
    return np.array([empty if c is None else c for c in cells.tolist()])


def to_columns(values: np.ndarray) -> dict[str, Any]:
    """Return an array as columns, one per entry of an example, named by their numbers."""
    rows = values.reshape(len(values), -1)
    return {str(i): rows[:, i] for i in range(rows.shape[1])}


def structured(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return columns as one structured array."""
    found = np.empty(len(next(iter(columns.values()))), [(name, c.dtype) for name, c in columns.items()])
    for name, c in columns.items():
        found[name] = c
    return found
