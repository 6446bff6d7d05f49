"""When a run is written down: after each epoch, every so often within one, and when a signal ends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vae.training.checkpoint.checkpoint import Checkpoint, name_of, refusal
from pyro_vae.training.checkpoint.observer import Observer
from pyro_vae.training.checkpoint.run_folder import RunFolder
from pyro_vae.training.checkpoint.settings import check_settings, check_weights
from pyro_vae.training.checkpoint.signals import Interrupted, Signals
from pyro_vae.training.checkpoint.weights import weights_file
from pyro_vae.training.loop import Loop

__all__ = ["Resumer", "Checkpointer"]

#: What the state of something else than a loop meets.
MALFORMED = (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError)


class Resumer(Observer):
    """Goes on from a checkpoint and leaves when a signal comes, and writes nothing: a rank beside the first.

    Args:
        checkpoints: the folder that the first rank writes to
    """

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints, self.signals = checkpoints, Signals()

    @contextmanager
    def recording(self, loop: Loop, checkpoint: Checkpoint | None) -> Iterator[None]:
        """Go on from a checkpoint, and tell where it was saved when a signal comes.

        Raises:
            Interrupted: a signal has come; all is saved.
        """
        if checkpoint is not None:
            self.restore(loop, checkpoint)
        self.begin(loop)
        with self.signals.watching():
            try:
                yield
            except Interrupted as end:
                end.checkpoint = self.save(loop)
                raise

    def begin(self, loop: Loop) -> None:
        """Be told that training begins."""

    def save(self, loop: Loop) -> Path:
        """Return the folder of the checkpoint that stands for the loop as it is."""
        return self.checkpoints / name_of(loop.svi.steps, loop.epoch)

    def asks(self, loop: Loop) -> int:
        """Return the number of the signal that has come."""
        return self.signals.caught or 0

    def restore(self, loop: Loop, checkpoint: Checkpoint) -> None:
        """Put a loop to where a checkpoint was written.

        Raises:
            ValueError: program, data or settings are others.
            CheckpointError: the state is not one of a loop.
        """
        state, path = checkpoint.state, checkpoint.path
        try:
            settings, named = dict(state["settings"]), name_of(state["engine"]["steps"], state["epoch"])
            if path.name != named:
                raise ValueError(f"it holds the state of {named}")
        except MALFORMED as error:
            raise refusal(path, f"{type(error).__name__}: {error}") from error
        check_settings(loop.settings, settings, path)
        check_weights(loop.program, checkpoint.weights, path)
        try:
            loop.restore(state)
        except MALFORMED as error:
            raise refusal(path, f"{type(error).__name__}: {error}") from error
        loop.program.load_state_dict(checkpoint.weights)


class Checkpointer(Resumer):
    """Writes checkpoints, metrics and weights of a loop into the folder of its run.

    Args:
        folder: the folder, entered
        every: seconds between two checkpoints within an epoch
    """

    def __init__(self, folder: RunFolder, *, every: float) -> None:
        super().__init__(folder.checkpoints)
        self.folder, self.every = folder, every
        self.saved = time.perf_counter()

    def begin(self, loop: Loop) -> None:
        """Make the metrics those of the rows so far."""
        self.folder.write_rows(loop.history.rows)

    def asks(self, loop: Loop) -> int:
        """Return the number of the signal that has come, or whether it is time to save."""
        return super().asks(loop) or int(loop.batch > 0 and time.perf_counter() - self.saved > self.every)

    def validating(self) -> None:
        """Leave if a signal has come."""
        self.signals.check()

    def epoch(self, loop: Loop) -> None:
        """Save checkpoint, metrics and weights."""
        weights = weights_file(loop.program)
        self.write(loop, weights)
        self.folder.append_row(loop.history.rows[-1])
        self.folder.write_weights(weights)

    def save(self, loop: Loop) -> Path:
        """Write a checkpoint and return its folder."""
        return self.write(loop, weights_file(loop.program))

    def write(self, loop: Loop, weights: bytes) -> Path:
        """Write a checkpoint with these weights and return its folder."""
        rows = [row for row in loop.history.rows if "valid_bound" in row]
        top = max(rows, key=lambda row: row["valid_bound"], default=None)
        best = top and self.folder.place(top["step"], top["epoch"] + 1)
        path = self.folder.save(weights, loop.state(), best=best)
        self.saved = time.perf_counter()
        return path

    def end(self, loop: Loop) -> None:
        """Write the weights that are kept, once the hooks are through, however training ended."""
        if loop.history.rows and not self.folder.failed:
            self.folder.write_weights(weights_file(loop.program))
