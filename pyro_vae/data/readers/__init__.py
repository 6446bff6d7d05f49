"""Readers, one per kind of source; a new one is one file and one line here."""

from __future__ import annotations

from typing import Any

from pyro_vae.data.readers.arrays import ARRAY, ROWS
from pyro_vae.data.readers.cells import ANNDATA, H5AD
from pyro_vae.data.readers.columns import COLUMNS, FRAME
from pyro_vae.data.readers.hierarchies import HDF5, ZARR
from pyro_vae.data.readers.images import IMAGES
from pyro_vae.data.readers.numpy_files import NUMPY
from pyro_vae.data.readers.parquet import PARQUET
from pyro_vae.data.readers.reader import Content, Options, Reader, is_path
from pyro_vae.data.readers.sequences import SEQUENCES, is_packed
from pyro_vae.data.readers.sparse import MATRIX_MARKET, SPARSE
from pyro_vae.data.readers.text import TEXT
from pyro_vae.data.readers.torch_data import TORCH

__all__ = ["FRAME", "READERS", "Content", "Options", "Reader", "find", "is_packed", "is_path"]

#: The first one that takes a source reads it.
READERS: tuple[Reader, ...] = (
    TEXT,
    PARQUET,
    NUMPY,
    MATRIX_MARKET,
    H5AD,
    HDF5,
    ZARR,
    IMAGES,
    FRAME,
    COLUMNS,
    SPARSE,
    ANNDATA,
    SEQUENCES,
    ARRAY,
    ROWS,
    TORCH,
)


def find(source: Any) -> Reader | None:
    """Return the reader of a source, None if there is none."""
    return next((reader for reader in READERS if reader.takes(source)), None)
