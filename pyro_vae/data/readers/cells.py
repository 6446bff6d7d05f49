"""Annotated matrices of single cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    names = [*options.covariates, *([] if options.label is None else [options.label])]
    unknown = [column for column in names if column not in source.obs]
    if unknown:
        what = "label" if unknown[0] == options.label else "covariates"
        raise ValueError(f"{what}: expected columns of obs of {name} ({', '.join(source.obs)}), got {unknown[0]}")
    notes = [f"counts: {'X' if options.key is None else f'layer {options.key}'}, {source.n_vars:,} genes"]
    notes += [f"layers: {', '.join(layers)} (key chooses one)"] if layers and options.key is None else []
    context = None
    if options.covariates:
        context, columns = one_hot(name, source.obs, options.covariates)
        notes.append(f"covariates: {', '.join(columns)}")
    labels = None if options.label is None else source.obs[options.label].to_numpy(object)
    rows = SparseRows(matrix) if hasattr(matrix, "tocsr") else np.asarray(matrix)
    return Content(rows=rows, labels=labels, context=context, counts=True, notes=tuple(notes))


def one_hot(name: str, obs: Any, covariates: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Return columns of obs as one-hot vectors, and the names of their entries."""
    parts, names = [], []
    for column in covariates:
        values = obs[column]
        if values.isna().any():
            raise ValueError(f"covariates: expected a value of {column} for each cell of {name}, got missing ones")
        text = values.astype(str).to_numpy(object)
        classes = sorted(set(text))
        parts.append(np.array([[value == c for c in classes] for value in text], np.float32))
        names += [f"{column}={c}" for c in classes]
    return torch.from_numpy(np.concatenate(parts, 1)), names


ANNDATA = Reader(
    source="AnnData",
    becomes="the counts in X or in a layer (`key`), with labels and one-hot covariates from the columns of obs",
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
