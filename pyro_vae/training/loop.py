"""The training loop as an object; its state after any step is all that a resumed run needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import evaluating
from pyro_vae.training.callbacks import Callback, Log, stops
from pyro_vae.training.checkpoint.checkpointer import Observer
from pyro_vae.training.checkpoint.settings import settings_of
from pyro_vae.training.checkpoint.signals import Interrupted
from pyro_vae.training.checkpoint.state import LastGood, TrainingState
from pyro_vae.training.collapse import is_due, warn_of_collapse
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.check import check_batch, check_first
from pyro_vae.training.data.lookahead import Batch
from pyro_vae.training.data.reader import Reader
from pyro_vae.training.errors import named_errors
from pyro_vae.training.history import History
from pyro_vae.training.step import minus_bound
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
        callbacks: called after each epoch, and after steps if they say so
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
        self.modules = [module for module in (svi.program, svi.estimator_module) if module is not None]
        self.history = History()
        self.epoch, self.batch, self.count, self.stopped = 0, 0, 0, False
        self.totals: dict[str, Tensor] = {}
        self.started = time.perf_counter()
        self.reader = Reader(batches, in_step=svi.data is not None)
        self.others: list[dict[str, Any]] = []
        self.latest = Batch()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings that a resumed run must share; first read before the first step, as a step may change parts."""
        return settings_of(self.svi, self.batches, self.held_out, self.callbacks)

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
                    self.gather()
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
        for batch in self.reader.epoch(self.epoch, self.batch):
            self.latest = batch
            check_batch(self.program, self.batches, batch, self.batch, self.epoch)
            with named_errors():
                metrics = self.svi.update(*batch, counts=batch.counts)
            n = metrics.pop("count", batch[0].shape[0])
            self.count = self.count + n
            for name, value in metrics.items():
                self.totals[name] = self.totals[name] + value if name in self.totals else value
            self.batch += 1
            bar.update()
            alone, together = self.ranks.size == 1, self.svi.steps % CHECK_STEPS == 0
            if time.perf_counter() - checked > CHECK_SECONDS if alone else together:
                bar.set_postfix({k: f"{v:.2f}" for k, v in self.means(self.totals, self.count).items()})
                good.keep(self.svi.steps)
                checked = time.perf_counter()
            if self.after_step(metrics, n):
                break
            if alone or together:
                self.save_if_due()
        if not self.count:
            raise ValueError(f"{self.batches.name}: expected at least one batch, got none from the data loader")
        good.keep(self.svi.steps)
        return self.row(self.totals, self.count)

    def after_step(self, metrics: dict[str, Tensor], n: int | Tensor) -> bool:
        """Call the callbacks that are due after this step; return whether one of them stops the training."""
        due = [c for c in self.callbacks if getattr(c, "every", None) and self.svi.steps % c.every == 0]
        if due:
            self.call([(callback, callback.on_step_end) for callback in due], self.row(metrics, n))
        return self.stopped

    def call(self, hooks: Sequence[tuple[Callback, Callable[..., Any]]], row: dict[str, Any]) -> None:
        """Call the hooks of callbacks with metrics; all are called, also after one of them stops the training."""
        answers = partial(map, lambda pair: stops(pair[0], pair[1](self.program, row)), hooks)
        self.stopped = self.ranks.all_agree(lambda: any([*answers()])) or self.stopped
        if not self.program.training:  # a callback has called `fit` or `eval`
            self.program.train()

    def row(self, sums: dict[str, Tensor], n: int | Tensor) -> dict[str, Any]:
        """Return the metrics of n examples with these sums: means in nats per example."""
        row = {"epoch": self.epoch, "step": self.svi.steps, **self.means(sums, n)}
        if isinstance(self.svi.estimator, Estimator):
            row["beta"] = float(self.svi.estimator.current_beta())
        return row

    def save_if_due(self) -> None:
        """Save a checkpoint if it is due on any rank, after the same step on all; leave if there was a signal."""
        asked = self.ranks.all_reduce_max(self.observer.asks(self))
        if asked:
            self.gather()
            self.ranks.on_rank_zero(partial(self.observer.save, self))
            if asked > 1:
                raise Interrupted(asked)

    def means(self, sums: dict[str, Tensor], n: int | Tensor) -> dict[str, float]:
        """Wait for the device, and return means over n examples, and the number of those that were skipped."""
        self.svi.raise_if_nonfinite(self.latest)
        found = {name: float(value) for name, value in sums.items()}
        skipped = {"skipped": int(found.pop("skipped"))} if "skipped" in found else {}
        taken = int(n) - skipped.get("skipped", 0)
        return {name: value / taken if taken else math.nan for name, value in found.items()} | skipped

    def finish(self, row: dict[str, Any]) -> None:
        """Validate, add the epoch to the history and call the callbacks."""
        self.ranks.check_weights(self.modules)
        if self.held_out is not None:
            row["valid_bound"] = self.mean_bound(self.held_out)
        row["seconds"] = time.perf_counter() - self.started
        self.history.append(row)
        if self.ranks.rank == 0 and self.latest.counts and is_due(self.svi.estimator, self.history.rows):
            warn_of_collapse(self.program, self.svi.estimator, self.svi.training_step.unweighted(self.latest))
        self.call([(callback, callback.on_epoch_end) for callback in self.callbacks], row)
        self.epoch, self.batch, self.count, self.totals = self.epoch + 1, 0, 0, {}

    def mean_bound(self, batches: Batches) -> float:
        """Return the bound (beta 1) of held-out data in mean nats per example; the noise is the same at each call."""
        program, estimator, ranks = self.program, self.svi.estimator, self.ranks
        total, count = 0.0, 0
        with evaluating(program), fork_rng(batches.device, ranks.seed(batches.seed)), named_errors():
            for number, batch in enumerate(batches.epoch(0)):
                if not batch.counts:
                    continue
                check_batch(program, batches, batch, number, 0)
                if isinstance(estimator, Estimator):
                    total += float(estimator.per_datum(program.model, program.guide, *batch).double().sum())
                else:
                    total -= minus_bound(estimator.loss(program.model, program.guide, *batch))
                count += batch[0].shape[0]
                if ranks.size == 1:  # several ranks leave together, after the epoch
                    self.observer.validating()
        total, count = ranks.all_reduce_sum(total, count)
        return total / count

    def open(self) -> None:
        """Check the first rows of data that are checked as they are read, before anything is written."""
        self.reader.check_first(self.program)
        if self.held_out is not None and not self.held_out.stored:
            self.ranks.all_agree(partial(check_first, self.program, self.held_out))

    def gather(self) -> None:
        """Send the random states of all ranks to rank 0, which saves them."""
        self.others = self.ranks.gather(self.reader.state(unfinished=self.batch > 0))[1:]

    def stateful(self) -> list[Callback]:
        """Return the callbacks whose state is saved."""
        return [callback for callback in self.callbacks if not isinstance(callback, Log)]

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
            random=[self.reader.state(unfinished=self.batch > 0), *self.others],
            callbacks=[callback.state_dict() for callback in self.stateful()],
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
        if self.ranks.rank < len(state.random):
            self.reader.restore(state.random[self.ranks.rank])
        # last, as a callback may restore weights at the end of the training
        for callback, saved in zip(self.stateful(), state.callbacks, strict=True):
            if saved:
                callback.load_state_dict(saved)
