"""SIGINT and SIGTERM while a run is trained: the step is finished and saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["Interrupted", "Signals"]


class Interrupted(KeyboardInterrupt):
    """A signal ended the training of a run; ``fit(..., resume=True)`` goes on where it stood.

    Args:
        number: of the signal, ``signal.SIGINT`` or ``signal.SIGTERM``

    Attributes:
        number: of the signal; a command exits with 128 more
        checkpoint: the folder where all was saved
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.checkpoint: Path | None = None

    def __str__(self) -> str:
        return f"{signal.Signals(self.number).name}: saved in {self.checkpoint}; resume goes on from there"


class Signals:
    """The signal that has come, if any."""

    def __init__(self) -> None:
        self.caught: int | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note the first SIGINT or SIGTERM; a second one meets the handlers from before, which end the process.

        Only the main thread can do so. The handlers from before are put back on leaving.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def put_back() -> None:
            for number, handler in before.items():
                # None: a handler that was not set from Python and cannot be set again
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

        def note(number: int, frame: FrameType | None) -> None:
            self.caught = number
            put_back()

        try:
            for number in before:
                signal.signal(number, note)
            yield
        finally:
            put_back()

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.caught is not None:
            raise Interrupted(self.caught)
