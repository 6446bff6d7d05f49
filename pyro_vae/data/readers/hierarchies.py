"""Files with several arrays: HDF5 and Zarr."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from pyro_vae.data.mapped import LARGE, Stored
from pyro_vae.data.readers.reader import Content, Options, Reader, ending, ends_in, is_path, needs

__all__ = ["HDF5", "ZARR"]

#: The arguments of ``read`` that apply.
OPTIONS = ("layout", "levels", "key")


def load_hdf5(name: str, source: Any, options: Options) -> Content:
    """Read an array of an HDF5 file."""
    module = needs(name, "h5py", "arrays")
    with Path(source).open("rb"):  # a missing file is an OSError that names it
        pass
    try:
        file = module.File(source, "r")
    except OSError as error:
        raise ValueError(f"{name}: expected an HDF5 file, got a damaged or other file ({error})") from error
    return of_arrays(name, {key: file[key] for key in file if hasattr(file[key], "shape")}, options)


def load_zarr(name: str, source: Any, options: Options) -> Content:
    """Read an array of a Zarr store."""
    module = needs(name, "zarr", "arrays")
    if not Path(source).exists():
        raise FileNotFoundError(f"{name}: No such file or folder")
    try:
        found = module.open(str(source), mode="r")
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name}: expected a Zarr store, got a damaged or other one ({error})") from error
    return of_arrays(name, {"x": found} if hasattr(found, "shape") else dict(found.arrays()), options)


def of_arrays(name: str, arrays: dict[str, Any], options: Options) -> Content:
    """Return one of several arrays, and the labels ``y`` if they are one of them."""
    own = options.key or next((key for key in ("x", "X") if key in arrays), None)
    own = own or (next(iter(arrays)) if len(arrays) == 1 else None)
    if own not in arrays:
        got = f"got {options.key!r}" if options.key else "got several. Pass one as key"
        raise ValueError(f"key: expected one of the arrays of {name} ({', '.join(arrays) or 'none'}), {got}")
    rows = arrays[own]
    labels = arrays["y"][:] if "y" in arrays and own != "y" else None
    labels = labels.astype(str) if labels is not None and labels.dtype.kind in "OS" else labels
    if labels is not None and labels.dtype.kind == "U":
        labels = [text[2:-1] if text.startswith("b'") else text for text in labels.tolist()]
    large = rows.dtype.itemsize * int(rows.size) > LARGE and len(rows.shape) > 1
    notes = ("rows are read batch by batch",) if large else ()
    return Content(rows=Stored(rows) if large else rows[:] if rows.shape else rows[()], labels=labels, notes=notes)


HDF5 = Reader(
    source="`.h5` and `.hdf5`, with the array `x`, `X` or `key`, and labels `y`",
    becomes="as the array; arrays of more than 1 GiB are read batch by batch",
    takes=ends_in((".h5", ".hdf5")),
    load=load_hdf5,
    options=OPTIONS,
    endings=(".h5", ".hdf5"),
    extra="arrays",
)
ZARR = Reader(
    source="`.zarr` (folder or zip), an array or a group with `x`, `X` or `key`, and labels `y`",
    becomes="as the array; arrays of more than 1 GiB are read batch by batch",
    takes=lambda source: is_path(source) and (ending(source) == ".zarr" or Path(source).name.endswith(".zarr.zip")),
    load=load_zarr,
    options=OPTIONS,
    endings=(".zarr",),
    extra="arrays",
)
