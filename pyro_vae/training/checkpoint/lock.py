"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

__all__ = ["RunInUseError", "locked"]

#: What a system answers that locks files, but not those of this file system.
CANNOT = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class RunInUseError(OSError):
    """Another process is training in this run folder."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file locked, with number and host of the process in it.

    The lock is the system's: it ends with the process however that ends, so that none is ever stale.

    Args:
        path: the file, made where it is not there and left empty

    Raises:
        RunInUseError: another process holds it.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        if not lock(number):
            holder = os.read(number, 200).decode(errors="replace").strip() or "another process"
            raise RunInUseError(
                f"run_dir: {path.parent} is in use by {holder}; wait for its end, end it, or name another folder"
            )
        os.ftruncate(number, 0)
        os.write(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
        os.ftruncate(number, 0)
    finally:
        os.close(number)


def lock(number: int) -> bool:
    """Lock an open file; return False if another process has."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in CANNOT:
            raise
        warnings.warn(
            f"run_dir: no lock here ({error.strerror}); see to it that no other process trains in this folder",
            stacklevel=2,
        )
    return True
