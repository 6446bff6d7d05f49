"""The batches of any epoch, with the position and the random state that a checkpoint saves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

from torch import Tensor

from pyro_vae._util.random_state import random_state, set_random_state
from pyro_vae.programs.program import Program
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.check import check_batch
from pyro_vae.training.data.lookahead import Batch
from pyro_vae.training.data.networks import warn_of_networks

__all__ = ["Reader"]


class Reader:
    """Batches of any epoch, starting at any batch, with the random numbers of an uninterrupted run.

    A loader draws its order as an epoch starts, and the noise of a batch as it is read: one step ahead, as
    :func:`~pyro_vae.training.data.lookahead.joined` does. So the random state is kept from both moments.

    Args:
        batches: training data
        in_step: whether a step selects its rows itself, so that a batch is the numbers of its rows
    """

    def __init__(self, batches: Batches, *, in_step: bool) -> None:
        self.batches, self.in_step = batches, in_step
        self.at_start: dict[str, Tensor] = {}
        self.ahead: dict[str, Tensor] = {}
        self.opened: Iterator[Batch] | None = None

    def check_first(self, program: Program) -> None:
        """Check the first batch of data that are checked as they are read; the first epoch begins with this batch.

        Raises:
            ValueError: the program cannot be trained on it, or there is none.
        """
        if not self.batches.stored:
            read = self.epoch(0, 0)
            first = next(read, None)
            self.batches.ranks.all_agree(partial(check_batch, program, self.batches, first, 0, 0))
            warn_of_networks(program, *self.batches.examples(first))
            self.opened = chain([first], read)

    def epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        """Return the batches of an epoch from batch number ``start`` on."""
        if self.opened is not None:
            opened, self.opened = self.opened, None
            return opened
        if self.in_step:
            return self.batches.selected(epoch, start)
        if self.batches.loader is None:
            return self.batches.epoch(epoch, start)
        now = self.streams()
        if not start:
            self.at_start = now
            return self.one_ahead(self.batches.epoch(epoch), 0)
        ahead = self.ahead
        self.set_streams(self.at_start)
        left = self.batches.epoch(epoch, start, lambda number: self.set_streams(ahead) if number == start else None)
        self.set_streams(now)
        return self.one_ahead(left, start)

    def one_ahead(self, batches: Iterator[Batch], start: int) -> Iterator[Batch]:
        """Yield batches of a loader, and keep the random state in which each is read while the one before is used."""
        while True:
            self.ahead = self.streams() if start else {}
            batch, start = next(batches, None), start + 1
            if batch is None:
                return
            yield batch

    def streams(self) -> dict[str, Tensor]:
        """Return the state of all random number generators."""
        own = getattr(self.batches.loader, "generator", None)
        return random_state(self.batches.device) | ({} if own is None else {"loader": own.get_state()})

    def set_streams(self, found: dict[str, Tensor]) -> None:
        """Restore what :meth:`streams` returned; nothing if it is empty."""
        if found:
            set_random_state(found, self.batches.device)
        if "loader" in found:
            self.batches.loader.generator.set_state(found["loader"])

    def state(self, *, unfinished: bool) -> dict[str, Any]:
        """Return the random state now, and if an epoch is unfinished, those that its batches need."""
        state = {"now": self.streams(), "at_start": self.at_start, "ahead": self.ahead}
        return state if unfinished else {**state, "at_start": {}, "ahead": {}}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.at_start, self.ahead = state["at_start"], state["ahead"]
        self.set_streams(state["now"])
