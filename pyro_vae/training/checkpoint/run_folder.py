"""The folder of a run during training: checkpoints, metrics and weights, written by one process at a time."""

from __future__ import annotations

import errno
import json
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pyro_vae._util.atomic_files import remove_folder, remove_leftovers, sync_folder, write_file
from pyro_vae._util.versions import VERSION
from pyro_vae.training.checkpoint import checkpoint
from pyro_vae.training.checkpoint.checkpoint import Checkpoint, checkpoint_name

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

__all__ = ["CONFIG", "SCHEMA", "RunFolder", "RunInUseError", "SaveError", "read_config"]

#: The configuration of a run: what the command was given, or under ``fit`` the settings of a run in Python.
CONFIG = "config.json"

#: Version of its layout; a newer one cannot be read.
SCHEMA = 2

#: Errors of a system that supports locks, but not on this file system.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class SaveError(OSError):
    """A file of a run could not be written; the message names the last good checkpoint."""


class RunInUseError(OSError):
    """Another process is training in this run folder."""


class RunFolder:
    """The folder of a run, as a context in which only this process writes to it.

    Args:
        path: the folder; it is created if it does not exist
        keep: number of checkpoints to keep, in addition to the one with the best validation bound

    Attributes:
        last: the last good checkpoint
        failed: whether a file could not be written

    Raises:
        RunInUseError: on entry: another process is writing to the folder.
        SaveError: on entry or later: a file could not be written.
    """

    def __init__(self, path: Path, *, keep: int) -> None:
        self.path, self.keep = path, keep
        self.checkpoints, self.metrics = path / "checkpoints", path / "metrics.jsonl"
        self.last: Path | None = None
        self.failed = False

    def __enter__(self) -> RunFolder:
        with ExitStack() as stack, self.saving("the folder"):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(self.path / "lock"))
            for folder in (self.path, self.checkpoints):
                remove_leftovers(folder)
            sync_folder(self.path)
            self.lock = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.lock.close()

    @property
    def holds_run(self) -> bool:
        """Whether there is a checkpoint to resume from; the context need not be entered."""
        return self.checkpoints.is_dir() and bool(checkpoint.complete(self.checkpoints))

    def start(self, *, resume: bool) -> Checkpoint | None:
        """Return the newest complete checkpoint; None for a new run.

        Raises:
            ValueError: there is a checkpoint and ``resume`` is False.
            CheckpointError: the newest checkpoint is damaged.
        """
        found = checkpoint.complete(self.checkpoints)
        if found and not resume:
            raise ValueError(
                f"run_dir: {self.path} holds a run (checkpoint {found[-1].name}). Resume it with resume=True, or "
                "choose another folder"
            )
        newest = checkpoint.newest(self.checkpoints)
        self.last = newest and Path(newest.path)
        with self.saving("incomplete checkpoints"):
            for path in set(self.checkpoints.iterdir()) - set(found):
                set_aside(path)
        return newest

    def save(self, weights: bytes, state: Mapping[str, Any], *, step: int, best: Path | None) -> Path:
        """Write a checkpoint unless it exists, then remove old ones except the best; return its folder."""
        path = self.place(step, state["epoch"])
        if path == self.last:
            return path
        with self.saving(f"checkpoint {path.name}"):
            checkpoint.save(path, weights, state)
            self.last = path
            for old in checkpoint.complete(self.checkpoints)[: -self.keep]:
                if old != best:
                    remove_folder(old)
        return path

    def place(self, step: int, epoch: int) -> Path:
        """Return the folder of the checkpoint after ``step`` steps and ``epoch`` complete epochs."""
        return self.checkpoints / checkpoint_name(step, epoch)

    def write_config(self, settings: Mapping[str, Any], epochs: int) -> None:
        """Write the settings of a run to ``config.json``, unless the command has written its own."""
        path = self.path / CONFIG
        found = read_config(path) if path.is_file() else {"fit": {}}
        if "fit" not in found:
            return
        if self.last is not None and found["fit"]:  # a resumed run has the same settings
            content = {**found, "epochs": epochs}
        else:
            content = {"schema": SCHEMA, "pyro_vae": VERSION, "epochs": epochs, "fit": settings}
        self.replace(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Replace the rows of ``metrics.jsonl``."""
        self.replace(self.metrics, "".join(map(to_line, rows)).encode())

    def append_row(self, row: dict[str, Any]) -> None:
        """Append a row to ``metrics.jsonl``, completely or not at all."""
        text = to_line(row).encode()
        with self.saving(self.metrics.name), self.metrics.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise

    def write_weights(self, weights: bytes) -> None:
        """Replace ``weights.safetensors``."""
        self.replace(self.path / "weights.safetensors", weights)

    def replace(self, path: Path, data: bytes) -> None:
        """Write a file unless it has this content already."""
        with self.saving(path.name):
            if not path.is_file() or path.is_symlink() or path.read_bytes() != data:
                write_file(path, data)

    @contextmanager
    def saving(self, what: str) -> Iterator[None]:
        """Turn an ``OSError`` into a SaveError that names what could not be saved, and the last good checkpoint."""
        try:
            yield
        except (SaveError, RunInUseError):
            raise
        except OSError as error:
            self.failed = True
            safe = f"the last good checkpoint is {self.last}" if self.last else "there is no checkpoint yet"
            raise SaveError(
                f"run_dir: cannot write {what} in {self.path}: {error.strerror or error}; {safe}"
            ) from error


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a ``config.json``.

    Raises:
        ValueError: it is not JSON, not a configuration, or was written by a newer version.
    """
    config = checkpoint.parse(path.read_bytes(), str(path))
    schema = config.get("schema") if isinstance(config, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ValueError(f"{path}: expected a configuration with a schema number, got {schema!r}")
    if schema > SCHEMA:
        raise ValueError(
            f"{path}: schema {schema} is newer than {SCHEMA}, the newest that pyro_vae {VERSION} reads. "
            "Update pyro_vae"
        )
    return config


def to_line(row: Mapping[str, Any]) -> str:
    """Return a row of the metrics as a line of JSON."""
    return json.dumps(row) + "\n"


def set_aside(path: Path) -> None:
    """Rename an incomplete folder that has the name of a checkpoint."""
    if checkpoint.NAME.fullmatch(path.name):
        taken = {p.name for p in path.parent.iterdir()}
        n = next(n for n in range(1, len(taken) + 2) if f"{path.name}.unfinished-{n}" not in taken)
        path.rename(path.with_name(f"{path.name}.unfinished-{n}"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file, which names this process and host while it is locked.

    The operating system releases the lock when the process ends for any reason, so a lock is never stale.

    Args:
        path: the file; it is created if it does not exist, and left empty

    Raises:
        RunInUseError: another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        if not acquire(descriptor):
            owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            raise RunInUseError(f"run_dir: {path.parent} is in use by {owner}. Wait for it, or choose another folder")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def acquire(descriptor: int) -> bool:
    """Lock an open file; return False if another process holds the lock."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"run_dir: cannot lock the folder ({error.strerror}). Make sure that no other process trains in it",
            stacklevel=2,
        )
    return True
