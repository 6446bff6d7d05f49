"""Observers of the training loop: they restore a run, save it, and stop it after a signal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pyro_vae.programs.program import Program
from pyro_vae.training.checkpoint.checkpoint import Checkpoint, checkpoint_name, damaged
from pyro_vae.training.checkpoint.run_folder import RunFolder
from pyro_vae.training.checkpoint.serialization import weights_to_bytes
from pyro_vae.training.checkpoint.settings import check_settings
from pyro_vae.training.checkpoint.signals import Interrupted, Signals
from pyro_vae.training.checkpoint.state import TrainingState, check_weights
from pyro_vae.training.history import History
from pyro_vae.training.svi import SVI

__all__ = ["Checkpointer", "Observer", "Resumer"]

#: Errors while a damaged state is restored.
MALFORMED = (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError)


class Resumable(Protocol):
    """What an observer uses of a training loop."""

    program: Program
    svi: SVI
    history: History
    settings: dict[str, Any]
    epoch: int  # complete epochs
    batch: int  # complete batches of the next epoch
    state: Callable[[], TrainingState]
    restore: Callable[[TrainingState], None]


class Observer:
    """Called by a training loop wherever it can be interrupted; this base class does nothing."""

    @contextmanager
    def recording(self, loop: Resumable, checkpoint: Checkpoint | None) -> Iterator[None]:
        """Surround the training, which is resumed from a checkpoint if there is one."""
        yield

    def asks(self, loop: Resumable) -> int:
        """Return the number of a signal that was received, 1 if a checkpoint is due, and 0 otherwise."""
        return 0

    def save(self, loop: Resumable) -> Any:
        """Save the loop, between two steps."""

    def validating(self) -> None:
        """React to a batch of validation, during which nothing can be saved."""

    def epoch(self, loop: Resumable) -> None:
        """React to the end of an epoch, after its callbacks."""

    def end(self, loop: Resumable) -> None:
        """React to the end of training, after the callbacks."""


class Resumer(Observer):
    """Restores a run from a checkpoint and stops it after a signal, but writes nothing: for ranks other than 0.

    Args:
        checkpoints: the folder that rank 0 writes checkpoints to
    """

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints, self.signals = checkpoints, Signals()

    @contextmanager
    def recording(self, loop: Resumable, checkpoint: Checkpoint | None) -> Iterator[None]:
        """Restore the checkpoint, and catch signals during the training.

        Raises:
            Interrupted: a signal was received; the state is saved.
        """
        settings = loop.settings  # read before the first step, which may change the parts
        if checkpoint is not None:
            self.restore(loop, Checkpoint(*checkpoint), settings)
        self.begin(loop)
        with self.signals.catching():
            try:
                yield
            except Interrupted as interrupted:
                interrupted.checkpoint = self.save(loop)
                raise

    def begin(self, loop: Resumable) -> None:
        """Called before the first step, after a checkpoint was restored."""

    def asks(self, loop: Resumable) -> int:
        """Return the number of the signal that was received, or 0."""
        return self.signals.caught or 0

    def save(self, loop: Resumable) -> Path:
        """Return the folder of the checkpoint that rank 0 writes for the present state."""
        return self.checkpoints / checkpoint_name(loop.svi.steps, loop.epoch)

    def restore(self, loop: Resumable, checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
        """Restore a loop with these settings from a checkpoint.

        Raises:
            ValueError: the checkpoint is from another program, other data or other settings.
            CheckpointError: the checkpoint is damaged.
        """
        path = Path(checkpoint.path)
        try:
            state = TrainingState(**checkpoint.state)
            name = checkpoint_name(state.steps, state.epoch)
            if path.name != name:
                raise ValueError(f"it contains the state of {name}")
        except MALFORMED as error:
            raise damaged(path, f"{type(error).__name__}: {error}") from error
        check_settings(settings, state.settings, path)
        check_weights(loop.program, checkpoint.weights, path)
        try:
            loop.restore(state)
        except MALFORMED as error:
            raise damaged(path, f"{type(error).__name__}: {error}") from error
        loop.program.load_state_dict(checkpoint.weights)


class Checkpointer(Resumer):
    """Writes checkpoints, metrics and weights to the folder of a run.

    Args:
        folder: the folder, whose context is entered before the training
        every: seconds between two checkpoints within an epoch
        epochs: number of epochs of the whole training
    """

    def __init__(self, folder: RunFolder, *, every: float, epochs: int) -> None:
        super().__init__(folder.checkpoints)
        self.folder, self.every, self.epochs = folder, every, epochs
        self.saved = time.perf_counter()

    def begin(self, loop: Resumable) -> None:
        """Write the settings of a new run, and remove metrics of epochs after the checkpoint."""
        self.folder.write_config(loop.settings, self.epochs)
        self.folder.write_rows(loop.history.rows)

    def asks(self, loop: Resumable) -> int:
        """Return the number of the signal that was received, or 1 if a checkpoint is due."""
        return super().asks(loop) or int(loop.batch > 0 and time.perf_counter() - self.saved > self.every)

    def validating(self) -> None:
        """Stop the validation after a signal."""
        self.signals.check()

    def epoch(self, loop: Resumable) -> None:
        """Save a checkpoint, the metrics of the epoch, and the weights."""
        weights = weights_to_bytes(loop.program.state_dict())
        self.write(loop, weights)
        self.folder.append_row(loop.history[-1])
        self.folder.write_weights(weights)

    def save(self, loop: Resumable) -> Path:
        """Write a checkpoint and return its folder."""
        return self.write(loop, weights_to_bytes(loop.program.state_dict()))

    def write(self, loop: Resumable, weights: bytes) -> Path:
        """Write a checkpoint with these weights and return its folder."""
        rows = [row for row in loop.history if "valid_bound" in row]
        best = max(rows, key=lambda row: row["valid_bound"], default=None)
        state = loop.state()
        path = self.folder.save(
            weights, vars(state), step=state.steps, best=best and self.folder.place(best["step"], best["epoch"] + 1)
        )
        self.saved = time.perf_counter()
        return path

    def end(self, loop: Resumable) -> None:
        """Write the final weights, which a callback may have restored."""
        if len(loop.history) and not self.folder.failed:
            self.folder.write_weights(weights_to_bytes(loop.program.state_dict()))
