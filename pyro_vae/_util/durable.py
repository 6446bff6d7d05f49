"""Files that are whole or not there: written beside their name, flushed to the disk, put in place by one rename."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["SaveError", "commit", "remove", "replace", "sweep"]

#: What is still being written, or thrown away: it ends in the number of the process that does it.
TEMPORARY = re.compile(r"\..*\.\d+\.tmp")


class SaveError(OSError):
    """Something of a run could not be written; it says what is still there."""


def replace(path: Path, data: bytes) -> None:
    """Write a file, in place of the one of that name; at every moment one of the two is there, and whole.

    Raises:
        OSError: nothing was changed.
    """
    new = temporary(path)
    try:
        write(new, data)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)


def commit(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files, which is there with all of them or not at all.

    Raises:
        OSError: nothing was changed; so it is where a folder of this name is there already.
    """
    new = temporary(folder)
    try:
        new.mkdir()
        for name, data in files.items():
            write(new / name, data)
        sync(new)
        os.rename(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    sync(folder.parent)


def remove(folder: Path) -> None:
    """Remove a folder, which is there with all its files or not at all; what cannot be removed is left to sweep."""
    old = temporary(folder)
    os.rename(folder, old)
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what dead processes left half-written; no other process may be writing here."""
    for path in folder.iterdir():
        if TEMPORARY.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """Return the name under which this process writes what will be called ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write(path: Path, data: bytes) -> None:
    """Write a new file to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
