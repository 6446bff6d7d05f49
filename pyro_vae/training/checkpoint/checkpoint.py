"""Checkpoints: folders that are written atomically and verified before anything in them is interpreted.

``checkpoints/step-00000120-epoch-0003`` is the checkpoint after 120 steps and 3 complete epochs. It contains
``weights.safetensors``, ``state.safetensors`` and ``state.json`` (all that is needed to resume the training), and
``manifest.json`` with the length and the SHA-256 of each file.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from pyro_vae._util.atomic_files import write_folder
from pyro_vae._util.validation import check_int
from pyro_vae._util.versions import VERSION, versions
from pyro_vae.training.checkpoint.serialization import CheckpointError, from_bytes, parse, to_bytes

__all__ = ["NAME", "Checkpoint", "checkpoint_name", "complete", "damaged", "newest", "read", "save"]

#: Version of the file format; a higher one cannot be read.
SCHEMA = 1
FILES = ("weights.safetensors", "state.safetensors", "state.json")
MANIFEST = "manifest.json"
#: Largest size of a manifest in bytes.
MANIFEST_BYTES = 1 << 16
NAME = re.compile(r"step-(\d{8,15})-epoch-(\d{4,15})")


class Checkpoint(NamedTuple):
    """The contents of a checkpoint.

    Attributes:
        path: its folder
        weights: state dict of the program
        state: all other state, as plain values and tensors
    """

    path: str
    weights: dict[str, Tensor]
    state: dict[str, Any]


def checkpoint_name(step: int, epoch: int) -> str:
    """Return the folder name of the checkpoint after ``step`` steps and ``epoch`` complete epochs."""
    return f"step-{step:08d}-epoch-{epoch:04d}"


def save(path: Path, weights: bytes, state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: its folder, which must not exist
        weights: a safetensors file
        state: plain values and tensors

    Raises:
        OSError: it could not be written; no part of it is left.
        TypeError: the state contains an object that is neither plain nor a tensor.
    """
    plain, tensors = to_bytes(state)
    files = dict(zip(FILES, (weights, tensors, plain), strict=True))
    manifest = {
        "schema": SCHEMA,
        "files": {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()},
        "versions": versions(),
    }
    write_folder(path, {**files, MANIFEST: json.dumps(manifest, indent=1).encode()})


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; lengths and digests are verified before any byte is interpreted.

    Raises:
        ValueError: it is damaged, or was written by a newer version.
    """
    try:
        if path.is_symlink():
            raise ValueError("expected a folder, got a link")
        expected = described(parse(contents(path / MANIFEST, MANIFEST_BYTES), MANIFEST))
        files = {name: contents(path / name, size) for name, (size, _) in expected.items()}
        for name, (size, sha) in expected.items():
            if len(files[name]) != size:
                raise ValueError(f"{name}: expected {size} bytes, as in {MANIFEST}, got {len(files[name])}")
            if sha256(files[name]) != sha:
                raise ValueError(f"{name}: its SHA-256 is not the one in {MANIFEST}")
        weights, tensors, plain = (files[name] for name in FILES)
        return Checkpoint(str(path), load_tensors(weights), from_bytes(plain, tensors, FILES[2]))
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def described(manifest: Any) -> dict[str, tuple[int, str]]:
    """Return the length and digest of each file in a manifest."""
    schema = check_int(f"{MANIFEST}: schema", manifest["schema"])
    if schema > SCHEMA:
        raise ValueError(
            f"schema: expected at most {SCHEMA}, which pyro_vae {VERSION} reads, got {schema}. Update pyro_vae"
        )
    if set(manifest["files"]) != set(FILES):
        raise ValueError(f"{MANIFEST}: expected {', '.join(FILES)}, got {', '.join(manifest['files'])}")
    return {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}


def contents(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most ``limit`` bytes."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name}: expected a regular file")
    if found.st_size > limit:
        raise ValueError(f"{path.name}: expected at most {limit} bytes, got {found.st_size}")
    return path.read_bytes()


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def complete(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first; a folder without manifest is an incomplete copy."""
    found = [(match, path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: (int(pair[0][1]), int(pair[0][2])))
    return [path for _, path in found if (path / MANIFEST).exists() or (path / MANIFEST).is_symlink()]


def newest(folder: Path) -> Checkpoint | None:
    """Read the newest complete checkpoint in a folder; None if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    paths = complete(folder)
    if not paths:
        return None
    try:
        return read(paths[-1])
    except ValueError as error:
        raise damaged(paths[-1], str(error)) from error


def damaged(path: Path, reason: str) -> CheckpointError:
    """Return the error for a damaged checkpoint, which names the last good checkpoint before it."""
    paths = complete(path.parent)
    good = next((earlier for earlier in reversed(paths[: paths.index(path)]) if is_good(earlier)), None)
    hint = "No checkpoint before it is good: train from scratch in another folder"
    if good is not None:
        hint = f"The last good one is {good}: move the damaged one away to resume from there"
    return CheckpointError(f"{path}: damaged checkpoint: {reason}. {hint}")


def is_good(path: Path) -> bool:
    """Whether a checkpoint can be read."""
    try:
        return bool(read(path).weights)
    except ValueError:
        return False
