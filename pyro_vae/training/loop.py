"""The training loop as an object; its state after any step is all that a resumed run needs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng, random_state, set_random_state
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import evaluating
from pyro_vae.training.callbacks import Callback
from pyro_vae.training.checkpoint.checkpointer import Observer
from pyro_vae.training.checkpoint.signals import Interrupted
from pyro_vae.training.checkpoint.state import LastGood, TrainingState, settings_of
from pyro_vae.training.data.batches import Batch, Batches
from pyro_vae.training.data.check import check_batch, check_first
from pyro_vae.training.history import History
from pyro_vae.training.svi import SVI, NonFiniteError

__all__ = ["Loop"]

#: Seconds between two checks of the losses, which are the only times at which Python waits for the device.
CHECK_SECONDS = 0.5

#: Steps between two such checks with several ranks, which have to check at the same time.
CHECK_STEPS = 100


class Loop:
    """Epochs of steps, validation and callbacks.

    Args:
        svi: takes the steps
        batches: training data
        held_out: validation data
        callbacks: called after each epoch
        observer: saves checkpoints

    Attributes:
        epoch: number of finished epochs
        batch: number of finished batches of the current epoch
        stopped: whether a callback has stopped training
    """

    def __init__(
        self,
        svi: SVI,
        batches: Batches,
        *,
        held_out: Batches | None,
        callbacks: Sequence[Callback],
        observer: Observer,
    ) -> None:
        self.svi, self.program, self.ranks = svi, svi.program, svi.ranks
        self.batches, self.held_out, self.callbacks, self.observer = batches, held_out, callbacks, observer
        self.settings = settings_of(svi, batches, held_out, callbacks)
        self.modules = [module for module in (svi.program, svi.estimator_module) if module is not None]
        self.history = History()
        self.epoch = self.batch = self.count = 0
        self.totals: dict[str, Tensor] = {}
        self.stopped = False
        self.started = time.perf_counter()
        self.at_start: dict[str, Tensor] = {}
        self.others: list[dict[str, Any]] = []
        self.latest = Batch()
        self.opened: Iterator[Batch] | None = None

    def train(self, epochs: int, *, progress: bool) -> None:
        """Train until ``epochs`` epochs are finished or a callback stops.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite; the last good weights are restored.
        """
        good = LastGood(self.program)
        total = None if self.batches.steps is None else self.batches.steps * epochs
        try:
            with progress_bar(total=total, initial=self.svi.steps, unit="step", progress=progress) as bar:
                while self.epoch < epochs and not self.stopped:
                    bar.set_description(f"epoch {self.epoch + 1}/{epochs}")
                    self.finish(self.run_steps(bar, good))
                    self.others = self.ranks.gather(self.own_streams())[1:]
                    self.ranks.on_rank_zero(partial(self.observer.epoch, self))
                    asked = self.ranks.all_reduce_max(self.observer.asks(self))
                    if asked > 1:
                        raise Interrupted(asked)
        except NonFiniteError:
            good.restore()
            raise

    def run_steps(self, bar: tqdm, good: LastGood) -> dict[str, Any]:
        """Train on each remaining batch of the epoch; return the means over the epoch."""
        checked = time.perf_counter()
        for batch in self.enter():
            self.latest = batch
            check_batch(self.program, self.batches, batch, self.batch)
            metrics = self.svi.update(*batch, counts=batch.counts)
            self.count = self.count + metrics.pop("count", batch[0].shape[0])
            for name, value in metrics.items():
                self.totals[name] = self.totals[name] + value if name in self.totals else value
            self.batch += 1
            bar.update()
            alone, together = self.ranks.size == 1, self.svi.steps % CHECK_STEPS == 0
            if time.perf_counter() - checked > CHECK_SECONDS if alone else together:
                bar.set_postfix({k: f"{v:.2f}" for k, v in self.means().items()})
                good.keep(self.svi.steps)
                checked = time.perf_counter()
            if alone or together:
                self.save_if_due()
        if not self.count:
            raise ValueError("data: expected at least one batch, got none from the data loader")
        row = {"epoch": self.epoch, "step": self.svi.steps, **self.means()}
        good.keep(self.svi.steps)
        if isinstance(self.svi.estimator, Estimator):
            row["beta"] = float(self.svi.estimator.current_beta())
        return row

    def save_if_due(self) -> None:
        """Save a checkpoint if it is due on any rank, after the same step on all; leave if there was a signal."""
        asked = self.ranks.all_reduce_max(self.observer.asks(self))
        if asked:
            self.others = self.ranks.gather(self.own_streams())[1:]
            self.ranks.on_rank_zero(partial(self.observer.save, self))
            if asked > 1:
                raise Interrupted(asked)

    def means(self) -> dict[str, float]:
        """Wait for the device, and return the means over the finished batches of the epoch."""
        self.svi.raise_if_nonfinite(self.latest)
        sums = {name: float(value) for name, value in self.totals.items()}
        skipped = {"skipped": int(sums.pop("skipped"))} if "skipped" in sums else {}
        taken = int(self.count) - skipped.get("skipped", 0)
        return {name: value / taken if taken else math.nan for name, value in sums.items()} | skipped

    def finish(self, row: dict[str, Any]) -> None:
        """Validate, add the epoch to the history and call the callbacks."""
        self.ranks.check_weights(self.modules)
        if self.held_out is not None:
            row["valid_bound"] = self.mean_bound(self.held_out)
        row["seconds"] = time.perf_counter() - self.started
        self.history.append(row)
        # a list: every callback is called, also when an earlier one stops
        self.stopped = self.ranks.all_agree(lambda: any([c.on_epoch_end(self.program, row) for c in self.callbacks]))  # noqa: C419
        self.epoch, self.batch, self.count, self.totals = self.epoch + 1, 0, 0, {}

    def mean_bound(self, batches: Batches) -> float:
        """Return the bound (beta 1) of held-out data in mean nats per example; the noise is the same at each call."""
        program, estimator, ranks = self.program, self.svi.estimator, self.ranks
        total, count = 0.0, 0
        with evaluating(program), fork_rng(batches.device, ranks.seed(batches.seed)):
            for number, batch in enumerate(batches.epoch(0)):
                if not batch.counts:
                    continue
                check_batch(program, batches, batch, number)
                if isinstance(estimator, Estimator):
                    total += float(estimator.per_datum(program.model, program.guide, *batch).double().sum())
                else:
                    total -= float(estimator.loss(program.model, program.guide, *batch))
                count += batch[0].shape[0]
                if ranks.size == 1:  # several ranks leave together, after the epoch
                    self.observer.validating()
        total, count = ranks.all_reduce_sum(total, count)
        return total / count

    def open(self) -> None:
        """Check the first batch of a loader before anything is written; the first epoch begins with this batch."""
        if self.batches.loader is not None:
            batches = self.enter()
            first = next(batches, None)
            self.ranks.all_agree(partial(check_batch, self.program, self.batches, first, 0))
            self.opened = chain([first], batches)
        if self.held_out is not None and self.held_out.loader is not None:
            self.ranks.all_agree(partial(check_first, self.program, self.held_out))

    def enter(self) -> Iterator[Batch]:
        """Return the remaining batches of the epoch; the random state stays as it is."""
        if self.opened is not None:
            opened, self.opened = self.opened, None
            return opened
        batches = self.batches.epoch if self.svi.data is None else self.batches.selected
        if not self.batch:
            self.at_start = self.streams()
            return batches(self.epoch)
        now = self.streams()
        # a loader draws its order as the epoch starts
        self.set_random_state(self.at_start)
        left = batches(self.epoch, self.batch)
        self.set_random_state(now)
        return left

    def streams(self) -> dict[str, Tensor]:
        """Return the state of all random number generators."""
        own = getattr(self.batches.loader, "generator", None)
        return random_state(self.batches.device) | ({} if own is None else {"loader": own.get_state()})

    def set_random_state(self, found: dict[str, Tensor]) -> None:
        """Restore what :meth:`streams` returned."""
        set_random_state(found, self.batches.device)
        if "loader" in found:
            self.batches.loader.generator.set_state(found["loader"])

    def own_streams(self) -> dict[str, Any]:
        """Return the random state of this rank, now and at the start of an unfinished epoch."""
        return {"now": self.streams(), "at_start": self.at_start if self.batch else {}}

    def state(self) -> TrainingState:
        """Return all state of the training except the weights of the program.

        Raises:
            NonFiniteError: a step since the last check was not finite.
        """
        self.svi.raise_if_nonfinite(self.latest)
        return TrainingState(
            settings=self.settings,
            epoch=self.epoch,
            batch=self.batch,
            count=int(self.count),
            totals=self.totals,
            stopped=self.stopped,
            seconds=time.perf_counter() - self.started,
            engine=self.svi.state(),
            random=[self.own_streams(), *self.others],
            callbacks=[state for callback in self.callbacks if (state := callback.state_dict())],
            rows=self.history.rows,
        )

    def restore(self, state: TrainingState) -> None:
        """Restore a state; the weights of the program are restored separately."""
        self.epoch, self.batch, self.count, self.stopped = state.epoch, state.batch, state.count, state.stopped
        self.totals = {name: value.to(self.batches.device) for name, value in state.totals.items()}
        self.started = time.perf_counter() - state.seconds
        self.history.rows = state.rows
        self.svi.restore(state.engine)
        # with more ranks than before, the new ones start with their own noise
        own = state.random[self.ranks.rank] if self.ranks.rank < len(state.random) else self.own_streams()
        self.at_start = own["at_start"] or self.streams()
        self.set_random_state(own["now"])
        # last, as a callback may restore weights at the end of the training
        stateful = [callback for callback in self.callbacks if callback.state_dict()]
        for callback, saved in zip(stateful, state.callbacks, strict=True):
            callback.load_state_dict(saved)
