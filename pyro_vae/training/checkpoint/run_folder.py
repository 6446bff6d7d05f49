"""The folder of a run while it is trained: checkpoints, metrics and weights, written by one process at a time."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pyro_vae._util import durable
from pyro_vae._util.durable import SaveError
from pyro_vae.training.checkpoint import checkpoint
from pyro_vae.training.checkpoint.checkpoint import Checkpoint
from pyro_vae.training.checkpoint.lock import RunInUseError, locked

__all__ = ["RunFolder"]


class RunFolder:
    """A context within which one process, this one, writes to the folder of a run.

    Args:
        path: the folder, made where it is not there
        keep: how many checkpoints to keep, beside the one with the best validation bound

    Attributes:
        last: the last good checkpoint
        failed: whether something could not be written

    Raises:
        RunInUseError: on entering: another process writes there.
        SaveError: on entering or later: something could not be written.
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
                durable.sweep(folder)
            durable.sync(self.path)
            self.held = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.held.close()

    @property
    def holds_run(self) -> bool:
        """Whether there is a checkpoint to go on from; the folder need not be entered."""
        return self.checkpoints.is_dir() and bool(checkpoint.complete(self.checkpoints))

    def start(self, *, resume: bool) -> Checkpoint | None:
        """Return the newest complete checkpoint, None for a new run.

        Raises:
            ValueError: there is one and ``resume`` is False.
            CheckpointError: it is damaged.
        """
        found = checkpoint.complete(self.checkpoints)
        if found and not resume:
            raise ValueError(
                f"run_dir: {self.path} holds a run (checkpoint {found[-1].name}); go on with it by resume=True, "
                "or name another folder"
            )
        newest = checkpoint.newest(self.checkpoints)
        self.last = newest and newest.path
        with self.saving("what to set aside"):
            for path in set(self.checkpoints.iterdir()) - set(found):
                set_aside(path)
        return newest

    def save(self, weights: bytes, state: Mapping[str, Any], *, best: Path | None) -> Path:
        """Write a checkpoint unless it is there; then remove old ones, but not the best."""
        path = self.place(state["engine"]["steps"], state["epoch"])
        if path == self.last:
            return path
        with self.saving(f"checkpoint {path.name}"):
            checkpoint.save(path, weights, state)
            self.last = path
            for old in checkpoint.complete(self.checkpoints)[: -self.keep]:
                if old != best:
                    durable.remove(old)
        return path

    def place(self, step: int, epoch: int) -> Path:
        """Return the folder of the checkpoint after ``step`` steps and ``epoch`` whole epochs."""
        return self.checkpoints / checkpoint.name_of(step, epoch)

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Make ``metrics.jsonl`` hold these rows and no others."""
        self.replace(self.metrics, "".join(map(line, rows)).encode())

    def append_row(self, row: dict[str, Any]) -> None:
        """Append a row to ``metrics.jsonl``, whole or not at all."""
        text = line(row).encode()
        with self.saving(self.metrics.name), self.metrics.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise

    def write_weights(self, weights: bytes) -> None:
        """Make ``weights.safetensors`` hold these weights."""
        self.replace(self.path / "weights.safetensors", weights)

    def replace(self, path: Path, data: bytes) -> None:
        """Write a file unless it is as it should be."""
        with self.saving(path.name):
            if not path.is_file() or path.is_symlink() or path.read_bytes() != data:
                durable.replace(path, data)

    @contextmanager
    def saving(self, what: str) -> Iterator[None]:
        """Tell errors of the system as what could not be saved, and what is safe."""
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


def line(row: Mapping[str, Any]) -> str:
    """Return a row of the metrics as a line of JSON."""
    return json.dumps(row) + "\n"


def set_aside(path: Path) -> None:
    """Rename what has the name of a checkpoint and is none."""
    if checkpoint.NAME.fullmatch(path.name):
        taken = {p.name for p in path.parent.iterdir()}
        n = next(n for n in range(1, len(taken) + 2) if f"{path.name}.unfinished-{n}" not in taken)
        path.rename(path.with_name(f"{path.name}.unfinished-{n}"))
