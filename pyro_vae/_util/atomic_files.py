"""Atomic writes: a file or folder appears complete or not at all, also after a crash or a power cut.

Data is written under a temporary name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["remove_folder", "remove_leftovers", "sync_folder", "write_file", "write_folder"]

#: Names of files and folders that are being written or removed; the number is that of the process.
TEMPORARY = re.compile(r"\..*\.\d+\.tmp")


def write_file(path: Path, data: bytes) -> None:
    """Write or replace a file; at every moment the path holds either the old data or the new.

    Raises:
        OSError: the file could not be written; nothing was changed.
    """
    new = temporary(path)
    try:
        write_new(new, data)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder of files; it appears with all of them or not at all.

    Raises:
        OSError: the folder exists, or could not be written; nothing was changed.
    """
    new = temporary(folder)
    try:
        new.mkdir()
        for name, data in files.items():
            write_new(new / name, data)
        sync_folder(new)
        os.rename(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder in one rename; files that cannot be deleted are left to :func:`remove_leftovers`."""
    old = temporary(folder)
    os.rename(folder, old)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that died; no other process may be writing to the folder."""
    for path in folder.iterdir():
        if TEMPORARY.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """Return the temporary name that this process writes to before it renames it to ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_new(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, on systems that support it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
