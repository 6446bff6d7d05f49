"""SIGINT and SIGTERM during training: the current step is finished and saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["Interrupted", "Signals"]


class Interrupted(KeyboardInterrupt):
    """A signal stopped the training of a run and its state was saved; resume it with ``fit(..., resume=True)``.

    Args:
        number: number of the signal, ``signal.SIGINT`` or ``signal.SIGTERM``

    Attributes:
        number: number of the signal; a command exits with 128 + number
        checkpoint: folder of the checkpoint
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.checkpoint: Path | None = None

    def __str__(self) -> str:
        return f"{signal.Signals(self.number).name}: saved in {self.checkpoint}. Resume with resume=True (--resume)"


class Signals:
    """Records the first SIGINT or SIGTERM.

    Attributes:
        caught: number of the signal; None as long as there is none
    """

    def __init__(self) -> None:
        self.caught: int | None = None

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Record the first signal; a second one reaches the previous handlers, which end the process.

        The previous handlers are restored on exit. Only the main thread can catch signals; others do nothing here.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def restore() -> None:
            for number, handler in previous.items():
                # None: the handler was not set from Python, so it cannot be restored
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

        def record(number: int, frame: FrameType | None) -> None:
            self.caught = number
            restore()

        try:
            for number in previous:
                signal.signal(number, record)
            yield
        finally:
            restore()

    def check(self) -> None:
        """Raise Interrupted if there was a signal."""
        if self.caught is not None:
            raise Interrupted(self.caught)
