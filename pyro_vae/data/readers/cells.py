"""Annotated matrices of single cells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pyro_vae.data.covariates import encode_covariates, entries
from pyro_vae.data.mapped import LARGE, Stored
from pyro_vae.data.readers.reader import Content, Options, Reader, ends_in, from_package, needs
from pyro_vae.data.readers.sparse import SparseRows, StoredSparse
from pyro_vae.data.tables.values import objects

__all__ = ["ANNDATA", "H5AD"]

#: The arguments of ``read`` that apply.
OPTIONS = ("label", "key", "covariates", "keep_empty")


def load(name: str, source: Any, options: Options) -> Content:
    """Return the counts of an AnnData, with labels and covariates of its cells."""
    layers = list(source.layers)
    if options.key is not None and options.key not in layers:
        raise ValueError(f"key: expected a layer of {name} ({', '.join(layers) or 'none'}), got {options.key!r}")
    matrix = source.X if options.key is None else source.layers[options.key]
    if matrix is None:
        raise ValueError(f"key: expected a layer of {name} ({', '.join(layers) or 'none'}), as it has no X. Pass one")
    if options.label is not None and options.label not in source.obs:
        raise ValueError(f"label: expected a column of obs of {name} ({', '.join(source.obs)}), got {options.label}")
    rows, how = rows_of(name, matrix)
    notes = [f"counts: {'X' if options.key is None else f'layer {options.key}'}, {rows.shape[1]:,} genes", *how]
    notes += [f"layers: {', '.join(layers)} (key chooses one)"] if layers and options.key is None else []
    context, columns = None, ()
    if options.covariates:
        context, columns = encode_covariates(f"obs of {name}", source.obs, options.covariates)
        notes.append(f"covariates: {', '.join(entries(columns))}")
    labels = None if options.label is None else source.obs[options.label].to_numpy(object)
    index = source.obs.index
    more = {"context": context, "covariates": columns, "notes": tuple(notes)}
    more["ids"] = {index.name or "cell": objects(map(str, index))}
    return Content(rows=rows, labels=labels, counts=True, **more)


def rows_of(name: str, matrix: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a matrix in memory or in a file as rows, and how those of a large file are read."""
    matrix = getattr(matrix, "group", matrix)  # a sparse matrix in a file, as AnnData wraps it
    if not from_package(matrix, "h5py"):
        return SparseRows(matrix) if hasattr(matrix, "tocsr") else np.asarray(matrix), ()
    parts = [matrix] if hasattr(matrix, "shape") else [matrix["data"], matrix["indices"]]
    large = sum(part.size * part.dtype.itemsize for part in parts) > LARGE
    by_batch = ("rows are read batch by batch",) if large else ()
    if len(parts) == 1:
        return Stored(matrix) if large else matrix[:], by_batch
    by_row = matrix.attrs["encoding-type"] == "csr_matrix"
    if large and by_row:
        return StoredSparse(matrix), by_batch
    make = getattr(needs(name, "scipy.sparse", "singlecell"), "csr_matrix" if by_row else "csc_matrix")
    found = make((parts[0][:], parts[1][:], matrix["indptr"][:]), tuple(matrix.attrs["shape"]))
    by_column = "stored by column, and read into memory: save the matrix as CSR to read its rows batch by batch"
    return SparseRows(found), (by_column,) if large else ()


ANNDATA = Reader(
    source="AnnData",
    becomes="the counts in X or in a layer (`key`), with labels and covariates from the columns of obs",
    takes=lambda source: from_package(source, "anndata", "AnnData"),
    load=load,
    options=OPTIONS,
    extra="singlecell",
)


def load_file(name: str, source: Any, options: Options) -> Content:
    """Read a file of AnnData, of which a large matrix stays in the file."""
    module, h5py = needs(name, "anndata.io", "singlecell"), needs(name, "h5py", "singlecell")
    with Path(source).open("rb"):  # a missing file is an OSError that names it
        pass
    try:
        file = h5py.File(source, "r")
        if "encoding-type" not in file.attrs:  # of anndata before 0.7
            found = module.read_h5ad(source)
        else:
            obs, layers = module.read_elem(file["obs"]), file.get("layers", {})
            found = SimpleNamespace(X=file.get("X"), layers=layers, obs=obs)
    except Exception as error:  # h5py raises errors of many types for damaged files
        raise ValueError(f"{name}: expected an .h5ad file, got a damaged or other file ({error})") from error
    return load(name, found, options)


H5AD = Reader(
    source="`.h5ad` (AnnData)",
    becomes="as AnnData; a dense or CSR matrix of more than 1 GiB is read batch by batch",
    takes=ends_in((".h5ad",)),
    load=load_file,
    options=OPTIONS,
    endings=(".h5ad",),
    extra="singlecell",
)
