"""Sparse matrices of counts, in memory and in files."""

from __future__ import annotations

import gzip
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.lazy import LazyRows
from pyro_vae.data.readers.reader import Content, Options, Reader, ends_in, from_package, needs

__all__ = ["MATRIX_MARKET", "SPARSE", "SparseRows", "StoredSparse", "of_parts"]

ENDINGS = (".mtx", ".mtx.gz")


class SparseRows(LazyRows):
    """Rows of a sparse matrix of scipy, which are made dense one batch at a time.

    Args:
        matrix: the matrix, of any format
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix.tocsr()
        self.shape, self.dtype = tuple(matrix.shape), matrix.dtype
        self.row_bytes = max(1, self.shape[1] * matrix.dtype.itemsize)

    def read(self, index: np.ndarray) -> Tensor:
        """Return these rows as a dense tensor."""
        return torch.from_numpy(self.matrix[index].toarray())


class StoredSparse(LazyRows):
    """Rows of a sparse matrix in a file of AnnData (CSR), which are read and made dense one batch at a time.

    Args:
        group: the group of h5py with the arrays ``data``, ``indices`` and ``indptr``
    """

    def __init__(self, group: Any) -> None:
        self.values, self.columns, self.ends = group["data"], group["indices"], group["indptr"][:]
        self.shape, self.dtype = tuple(map(int, group.attrs["shape"])), self.values.dtype
        self.row_bytes = max(1, self.shape[1] * self.dtype.itemsize)

    def read(self, index: np.ndarray) -> Tensor:
        """Return these rows as a dense tensor; neighbours in the file are read at once."""
        rows, back = np.unique(index, return_inverse=True)
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        parts = [slice(self.ends[run[0]], self.ends[run[-1] + 1]) for run in runs if len(run)]
        values, columns = (
            np.concatenate([array[part] for part in parts] or [array[:0]]) for array in (self.values, self.columns)
        )
        ends = np.cumsum([0, *(self.ends[rows + 1] - self.ends[rows])])
        make = importlib.import_module("scipy.sparse").csr_matrix
        return SparseRows(make((values, columns, ends), (len(rows), self.shape[1]))).read(back)


def load(name: str, source: Any, options: Options) -> Content:
    """Return the rows of a sparse matrix."""
    return Content(rows=SparseRows(source), counts=True)


SPARSE = Reader(
    source="sparse matrix or array of scipy",
    becomes="counts; rows are made dense one batch at a time",
    takes=lambda source: from_package(source, "scipy") and hasattr(source, "tocsr"),
    load=load,
    options=("keep_empty",),
)


def load_file(name: str, source: Any, options: Options) -> Content:
    """Read a file in the Matrix Market format."""
    module = needs(name, "scipy.io", "singlecell")
    path = Path(source)
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            matrix = module.mmread(file)
        except Exception as error:  # scipy raises errors of many types for damaged files
            raise ValueError(
                f"{name}: expected a Matrix Market file, got a damaged or other file ({error})"
            ) from error
    if not hasattr(matrix, "tocsr"):
        return Content(rows=matrix, counts=True)
    shape = f"{matrix.shape[0]:,} rows and {matrix.shape[1]:,} columns"
    return Content(rows=SparseRows(matrix), counts=True, notes=(f"rows are examples: {shape} as in the file",))


MATRIX_MARKET = Reader(
    source="`.mtx` and `.mtx.gz` (Matrix Market)",
    becomes="counts; rows of the file are examples",
    takes=ends_in(ENDINGS),
    load=load_file,
    options=("keep_empty",),
    endings=ENDINGS,
    extra="singlecell",
)


def of_parts(name: str, arrays: dict[str, np.ndarray]) -> Content | None:
    """Return the matrix that ``scipy.sparse.save_npz`` wrote, None for other arrays."""
    if not {"format", "shape", "data"} <= arrays.keys():
        return None
    module = needs(name, "scipy.sparse", "singlecell")
    kind = arrays["format"].item()
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    shape, data = tuple(arrays["shape"].tolist()), arrays["data"]
    try:
        if kind in ("csr", "csc", "bsr"):
            make = getattr(module, f"{kind}_matrix")
            return Content(rows=SparseRows(make((data, arrays["indices"], arrays["indptr"]), shape)), counts=True)
        return Content(rows=SparseRows(module.coo_matrix((data, (arrays["row"], arrays["col"])), shape)), counts=True)
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            f"{name}: expected a sparse matrix of format csr, csc, bsr or coo, got {kind} ({error})"
        ) from error
