"""Files of numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data import files
from pyro_vae.data.mapped import LARGE
from pyro_vae.data.readers.columns import TABLE_OPTIONS, by_name
from pyro_vae.data.readers.reader import Content, Options, Reader, ends_in
from pyro_vae.data.readers.sparse import of_parts

__all__ = ["NUMPY"]

ENDINGS = (".npy", ".npz")


def load(name: str, source: Any, options: Options) -> Content:
    """Read an array, a table, or arrays by name."""
    path = Path(source)
    large = path.suffix.lower() == ".npy" and path.stat().st_size > LARGE
    found = files.read(path, mapped=large)
    if isinstance(found, np.memmap):
        return Content(rows=found, notes=("rows are read batch by batch",))
    if isinstance(found, np.ndarray):
        return Content(rows=found)
    if options.key is not None:
        if options.key not in found:
            raise ValueError(f"key: expected one of the arrays of {name} ({', '.join(found)}), got {options.key!r}")
        return Content(rows=found[options.key], labels=found.get("y"))
    return of_parts(name, found) or by_name(name, found)


NUMPY = Reader(
    source=(
        "`.npy`; `.npz` with the array `x` or `X` and labels `y`, with columns of one length, with an array `(steps, "
        "channels)` per sequence, or of scipy.sparse"
    ),
    becomes=(
        "as the array, with labels; sequences with `lengths` and `inputs`; a structured array and columns are a "
        "table; a sparse matrix is one of counts; a `.npy` of more than 1 GiB is read batch by batch"
    ),
    takes=ends_in(ENDINGS),
    load=load,
    options=(*TABLE_OPTIONS, "layout", "levels", "key"),
    endings=ENDINGS,
)
