"""Annotated matrices of single cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyro_vae.data.covariates import encode_covariates, entries
from pyro_vae.data.readers.reader import Content, Options, Reader, ends_in, from_package, needs
from pyro_vae.data.readers.sparse import SparseRows

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
    notes = [f"counts: {'X' if options.key is None else f'layer {options.key}'}, {source.n_vars:,} genes"]
    notes += [f"layers: {', '.join(layers)} (key chooses one)"] if layers and options.key is None else []
    context, columns = None, ()
    if options.covariates:
        context, columns = encode_covariates(f"obs of {name}", source.obs, options.covariates)
        notes.append(f"covariates: {', '.join(entries(columns))}")
    labels = None if options.label is None else source.obs[options.label].to_numpy(object)
    rows = SparseRows(matrix) if hasattr(matrix, "tocsr") else np.asarray(matrix)
    more = {"context": context, "covariates": columns, "notes": tuple(notes)}
    return Content(rows=rows, labels=labels, counts=True, **more)


ANNDATA = Reader(
    source="AnnData",
    becomes="the counts in X or in a layer (`key`), with labels and covariates from the columns of obs",
    takes=lambda source: from_package(source, "anndata", "AnnData"),
    load=load,
    options=OPTIONS,
    extra="singlecell",
)


def load_file(name: str, source: Any, options: Options) -> Content:
    """Read a file of AnnData."""
    module = needs(name, "anndata", "singlecell")
    with Path(source).open("rb"):  # a missing file is an OSError that names it
        pass
    try:
        found = module.read_h5ad(source)
    except Exception as error:  # h5py raises errors of many types for damaged files
        raise ValueError(f"{name}: expected an .h5ad file, got a damaged or other file ({error})") from error
    return load(name, found, options)


H5AD = Reader(
    source="`.h5ad` (AnnData)",
    becomes="as AnnData",
    takes=ends_in((".h5ad",)),
    load=load_file,
    options=OPTIONS,
    endings=(".h5ad",),
    extra="singlecell",
)
