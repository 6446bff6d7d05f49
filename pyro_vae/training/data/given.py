"""What a DataLoader gives, looked at batch by batch: rows that lie ready are checked all together before training."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

from pyro_vae._util.random_state import fork_rng
from pyro_vae.programs.program import Program
from pyro_vae.training.data.batches import Batch, Batches

__all__ = ["check_batch", "check_first"]


def check_batch(program: Program, batch: Batch | None, number: int, name: str = "data") -> None:
    """Refuse a batch of a loader that the program cannot use, or that is not there.

    Args:
        program: whose data they are
        batch: the batch, None where the loader gave none
        number: of the batch
        name: of the argument that the loader is

    Raises:
        ValueError: of ``program.check``, and which batch it is.
    """
    if batch is None:
        raise ValueError(f"{name}: expected at least one batch, the data loader gave none")
    try:
        program.check(*batch)
    except ValueError as error:
        raise ValueError(f"{error} (in batch {number} of the data loader, argument {name})") from error


def check_first(program: Program, batches: Batches, name: str) -> None:
    """Refuse a loader whose first batch the program cannot use, without a trace in it; a stream is not read."""
    # what a stream gives is gone once it is read
    if isinstance(getattr(batches.loader, "dataset", None), Sized):
        with fork_rng(batches.device), order_kept(batches.loader):
            first = next(batches.epoch(0), None)
        check_batch(program, first, 0, name)


@contextmanager
def order_kept(loader: Any) -> Iterator[None]:
    """Put the generator of a loader back to where it stands."""
    own = getattr(loader, "generator", None)
    before = None if own is None else own.get_state()
    try:
        yield
    finally:
        if own is not None:
            own.set_state(before)
