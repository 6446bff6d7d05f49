"""Who is told wherever a training loop can be left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_vae.training.checkpoint.checkpoint import Checkpoint
    from pyro_vae.training.loop import Loop

__all__ = ["Observer"]


class Observer:
    """Called by a loop wherever it can be left; this one does nothing."""

    @contextmanager
    def recording(self, loop: Loop, checkpoint: Checkpoint | None) -> Iterator[None]:
        """Surround the training of a loop, which goes on from a checkpoint if there is one."""
        yield

    def asks(self, loop: Loop) -> int:
        """Return the number of the signal that has come, 1 for a checkpoint that is due, or 0."""
        return 0

    def save(self, loop: Loop) -> Any:
        """Write the loop down as it stands."""

    def validating(self) -> None:
        """Be told of a batch of validation, within which nothing can be saved."""

    def epoch(self, loop: Loop) -> None:
        """Look at the loop after an epoch and its hooks."""

    def end(self, loop: Loop) -> None:
        """Look at the loop once training and hooks are through."""
