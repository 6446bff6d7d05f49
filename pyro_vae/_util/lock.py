"""One lock for what all threads share: Pyro's handlers, torch's random state and the modes of modules."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["LOCK", "in_turn"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

#: Held by whatever seeds torch, runs a program or changes its mode; one thread may take it several times.
LOCK: Any = threading.RLock()


def free_in_child() -> None:
    """Free the lock in a forked process if another thread held it, as that thread does not exist there."""
    if not LOCK._is_owned():
        LOCK._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=free_in_child)


def in_turn(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make calls of a function from several threads run one after the other.

    Every public function that takes a program is decorated: what it changes until it returns belongs to the process
    (random state, handlers, validation, warnings) or to the program (modes, hooks, buffers).

    Example:
        >>> in_turn(abs)(-1)
        1
    """

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with LOCK:
            return function(*args, **kwargs)

    return call
