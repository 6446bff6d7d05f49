"""Checkpoints: folders that are whole or not there, proved to be whole before anything in them is read.

``checkpoints/step-00000120-epoch-0003`` stands after 120 steps, 3 epochs being over. It holds
``weights.safetensors``, ``state.safetensors`` and ``state.json`` (all that training needs to go on), and
``manifest.json`` with the length and the SHA-256 of each.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

import pyro_vae
from pyro_vae._util import durable
from pyro_vae.training.checkpoint.packing import pack, parse, unpack
from pyro_vae.training.checkpoint.weights import CheckpointError, unshared

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "complete",
    "name_of",
    "newest",
    "pack_in_bytes",
    "read",
    "refusal",
    "save",
    "unpack_bytes",
]

#: Of the layout of a checkpoint; a reader refuses a higher one.
SCHEMA = 1
FILES = ("weights.safetensors", "state.safetensors", "state.json")
MANIFEST = "manifest.json"
#: Bytes that a manifest has at most.
LARGEST = 1 << 16
NAME = re.compile(r"step-(\d{8,15})-epoch-(\d{4,15})")


@dataclass(frozen=True)
class Checkpoint:
    """What was read from a folder.

    Attributes:
        path: the folder
        weights: of the program
        state: everything else
    """

    path: Path
    weights: dict[str, Tensor]
    state: dict[str, Any]


def name_of(step: int, epoch: int) -> str:
    """Return the name of the checkpoint after ``step`` steps and ``epoch`` whole epochs."""
    return f"step-{step:08d}-epoch-{epoch:04d}"


def save(path: Path, weights: bytes, state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: its folder, which must not be there yet
        weights: a safetensors file
        state: plain values and tensors

    Raises:
        OSError: it could not be written; nothing of it is left.
        TypeError: something in the state is neither plain nor a tensor.
    """
    plain, tensors = pack_in_bytes(state)
    files = dict(zip(FILES, (weights, tensors, plain), strict=True))
    manifest = {
        "schema": SCHEMA,
        "files": {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()},
        "versions": {
            "pyro_vae": pyro_vae.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "pyro-ppl", "numpy", "safetensors")},
        },
    }
    durable.commit(path, {**files, MANIFEST: json.dumps(manifest, indent=1).encode()})


def pack_in_bytes(value: Any) -> tuple[bytes, bytes]:
    """Return plain values and tensors as JSON and as a safetensors file."""
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(pack(value, tensors), indent=1, allow_nan=False).encode()
    return plain, save_tensors(unshared(tensors))


def unpack_bytes(plain: bytes, tensors: bytes) -> Any:
    """Return what :func:`pack_in_bytes` was given."""
    return unpack(parse(plain, FILES[2]), load_tensors(tensors))


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; no byte is interpreted before lengths and digests are found to be right.

    Raises:
        ValueError: it is damaged, or a newer version wrote it.
    """
    try:
        if path.is_symlink():
            raise ValueError("a link, not a folder")
        told = described(parse(contents(path / MANIFEST, LARGEST), MANIFEST))
        files = {name: contents(path / name, size) for name, (size, _) in told.items()}
        for name, (size, wanted) in told.items():
            if len(files[name]) != size:
                raise ValueError(f"{name} has {len(files[name])} bytes, the manifest says {size}")
            if sha256(files[name]) != wanted:
                raise ValueError(f"{name} has another SHA-256 than the manifest says")
        weights, tensors, plain = (files[name] for name in FILES)
        return Checkpoint(path, load_tensors(weights), unpack_bytes(plain, tensors))
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def described(manifest: Any) -> dict[str, tuple[int, str]]:
    """Return length and digest of each file, as a manifest tells them."""
    schema = manifest["schema"]
    if type(schema) is not int or schema < 1:
        raise ValueError(f"{MANIFEST}: expected a schema number, got {schema!r}")
    if schema > SCHEMA:
        raise ValueError(
            f"schema {schema} is newer than {SCHEMA}, which pyro_vae {pyro_vae.__version__} reads: update pyro_vae"
        )
    if set(manifest["files"]) != set(FILES):
        raise ValueError(f"{MANIFEST}: expected {', '.join(FILES)}, got {', '.join(manifest['files'])}")
    return {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}


def contents(path: Path, most: int) -> bytes:
    """Return the bytes of a plain file, which must not be longer than ``most``."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is no plain file")
    if found.st_size > most:
        raise ValueError(f"{path.name} has {found.st_size} bytes, expected at most {most}")
    return path.read_bytes()


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def complete(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first, without those that have no manifest: a copy that broke off."""
    found = [(match, path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: (int(pair[0][1]), int(pair[0][2])))
    return [path for _, path in found if (path / MANIFEST).exists() or (path / MANIFEST).is_symlink()]


def newest(folder: Path) -> Checkpoint | None:
    """Read the newest complete checkpoint in a folder, None if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    paths = complete(folder)
    if not paths:
        return None
    try:
        return read(paths[-1])
    except ValueError as error:
        raise refusal(paths[-1], str(error)) from error


def refusal(path: Path, reason: str) -> CheckpointError:
    """Return the error that says what is wrong with a checkpoint, and which earlier one is good."""
    paths = complete(path.parent)
    good = next((earlier for earlier in reversed(paths[: paths.index(path)]) if is_good(earlier)), None)
    way_out = "there is no good one before it: train anew in another folder"
    if good is not None:
        way_out = f"the last good one is {good}: move the damaged one away to go on from there"
    return CheckpointError(f"{path}: damaged checkpoint: {reason}; {way_out}")


def is_good(path: Path) -> bool:
    """Whether a checkpoint can be read."""
    try:
        return bool(read(path).weights)
    except ValueError:
        return False
