"""The training loop as an object, whose state after any step is all that it takes to go on from there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from pyro.infer import ELBO as PyroELBO
from torch import Tensor
from tqdm.auto import tqdm

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng, random_state, set_random_state
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.training.callbacks import Callback
from pyro_vae.training.checkpoint.checkpointer import Observer
from pyro_vae.training.checkpoint.signals import Interrupted
from pyro_vae.training.checkpoint.state import LastGood, TrainingState, settings_of
from pyro_vae.training.data.batches import Batch, Batches
from pyro_vae.training.data.check import check_batch, check_first
from pyro_vae.training.history import History
from pyro_vae.training.svi import SVI, NonFiniteError

__all__ = ["Loop"]

#: Seconds between two looks at the losses, the only times at which the device is waited for.
LOOK = 0.5

#: Steps between two looks where several ranks have to look at the same time.
LOOK_STEPS = 100


class Loop:
    """Epochs of steps, validation and callbacks.

    Args:
        svi: the engine
        batches: training data
        held_out: validation data
        hooks: asked after each epoch
        watch: told wherever the loop can be left

    Attributes:
        epoch: epochs that are over
        batch: batches of the next epoch that are over
        stopped: whether a hook wanted to stop
    """

    def __init__(
        self,
        svi: SVI,
        batches: Batches,
        *,
        held_out: Batches | None,
        hooks: Sequence[Callback],
        watch: Observer,
    ) -> None:
        self.svi, self.program, self.batches, self.held_out = svi, svi.program, batches, held_out
        self.hooks, self.watch = hooks, watch
        self.settings = settings_of(svi, batches, held_out, hooks)
        self.history = History()
        self.epoch = self.batch = self.count = 0
        self.totals: dict[str, Tensor] = {}
        self.ranks = svi.ranks
        self.modules = [module for module in (svi.program, svi.beside) if module is not None]
        self.stopped = False
        self.started = time.perf_counter()
        self.at_start: dict[str, Tensor] = {}
        self.others: list[dict[str, Any]] = []
        self.latest = Batch()
        self.opened: Iterator[Batch] | None = None

    def train(self, epochs: int, *, progress: bool) -> None:
        """Train until so many epochs are over or a hook wants to stop.

        Raises:
            NonFiniteError: a loss or gradient turned NaN; the weights are then the last good ones.
        """
        good = LastGood(self.program)
        total = None if self.batches.steps is None else self.batches.steps * epochs
        try:
            with progress_bar(total=total, initial=self.svi.steps, unit="step", progress=progress) as bar:
                while self.epoch < epochs and not self.stopped:
                    bar.set_description(f"epoch {self.epoch + 1}/{epochs}")
                    self.finish(self.run_steps(bar, good))
                    self.gather()
                    self.ranks.on_rank_zero(partial(self.watch.epoch, self))
                    self.leave(self.ranks.all_reduce_max(self.watch.asks(self)))
        except NonFiniteError:
            good.restore()
            raise

    def run_steps(self, bar: tqdm, good: LastGood) -> dict[str, Any]:
        """Train on each batch of the epoch that is left; return the means over the epoch."""
        looked = time.perf_counter()
        for batch in self.enter():
            self.latest = batch
            check_batch(self.program, self.batches, batch, self.batch)
            metrics = self.svi.update(*batch, counts=batch.counts)
            self.count = self.count + metrics.pop("count", batch[0].shape[0])
            for name, value in metrics.items():
                self.totals[name] = self.totals[name] + value if name in self.totals else value
            self.batch += 1
            bar.update()
            late = time.perf_counter() - looked > LOOK
            if late if self.ranks.size == 1 else self.svi.steps % LOOK_STEPS == 0:
                bar.set_postfix({k: f"{v:.2f}" for k, v in self.means().items()})
                good.keep(self.svi.steps)
                looked = time.perf_counter()
            if self.ranks.size == 1 or self.svi.steps % LOOK_STEPS == 0:
                self.save_if_asked()
        if not self.count:
            raise ValueError("data: expected at least one batch, got none from the data loader")
        row = {"epoch": self.epoch, "step": self.svi.steps, **self.means()}
        good.keep(self.svi.steps)
        if isinstance(self.svi.estimator, Estimator):
            row["beta"] = float(self.svi.estimator.current_beta())
        return row

    def save_if_asked(self) -> None:
        """Save what stands, after the same step on all ranks; leave if a signal has come to any."""
        asked = self.ranks.all_reduce_max(self.watch.asks(self))
        if asked:
            self.gather()
            self.ranks.on_rank_zero(partial(self.watch.save, self))
            self.leave(asked)

    def leave(self, asked: int) -> None:
        """Raise Interrupted if what was asked is a signal."""
        if asked > 1:
            raise Interrupted(asked)

    def gather(self) -> None:
        """Bring the random streams of all ranks to rank 0, which alone writes them down."""
        self.others = self.ranks.gather(self.own_streams())[1:]

    def means(self) -> dict[str, float]:
        """Return the means over the batches of the epoch so far, once the device is done."""
        self.svi.raise_if_nonfinite(self.latest)
        sums = {name: float(value) for name, value in self.totals.items()}
        skipped = {"skipped": int(sums.pop("skipped"))} if "skipped" in sums else {}
        taken = int(self.count) - skipped.get("skipped", 0)
        return {name: value / taken if taken else math.nan for name, value in sums.items()} | skipped

    def finish(self, row: dict[str, Any]) -> None:
        """Validate, record the epoch and ask the hooks."""
        self.ranks.check_weights(self.modules)
        if self.held_out is not None:
            # several ranks leave together, after the epoch
            look = self.watch.validating if self.ranks.size == 1 else lambda: None
            row["valid_bound"] = mean_bound(self.program, self.svi.estimator, self.held_out, look)
        row["seconds"] = time.perf_counter() - self.started
        self.history.append(row)
        # every hook is asked, also when an earlier one wants to stop
        self.stopped = self.ranks.all_agree(lambda: any([hook.on_epoch_end(self.program, row) for hook in self.hooks]))  # noqa: C419
        self.epoch, self.batch, self.count, self.totals = self.epoch + 1, 0, 0, {}

    def open(self) -> None:
        """Refuse a bad first batch of a loader while nothing is written yet; the first epoch begins with it."""
        if self.batches.loader is not None:
            batches = self.enter()
            first = next(batches, None)
            self.ranks.all_agree(partial(check_batch, self.program, self.batches, first, 0))
            self.opened = chain([first], batches)
        if self.held_out is not None and self.held_out.loader is not None:
            self.ranks.all_agree(partial(check_first, self.program, self.held_out))

    def enter(self) -> Iterator[Batch]:
        """Return the batches of the epoch that are left, the random streams being where they were."""
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
        """Return where all random streams stand."""
        own = getattr(self.batches.loader, "generator", None)
        return random_state(self.batches.device) | ({} if own is None else {"loader": own.get_state()})

    def set_random_state(self, found: dict[str, Tensor]) -> None:
        """Put all random streams to where :meth:`streams` found them."""
        set_random_state(found, self.batches.device)
        if "loader" in found:
            self.batches.loader.generator.set_state(found["loader"])

    def own_streams(self) -> dict[str, Any]:
        """Return where the streams of this rank stand, and stood as the epoch began that is not over."""
        return {"now": self.streams(), "at_start": self.at_start if self.batch else {}}

    def stateful(self) -> list[Callback]:
        """Return the callbacks that have a state."""
        return [hook for hook in self.hooks if hook.state_dict()]

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
            callbacks=[hook.state_dict() for hook in self.stateful()],
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
        for hook, saved in zip(self.stateful(), state.callbacks, strict=True):
            hook.load_state_dict(saved)


def mean_bound(
    program: Program, estimator: PyroELBO, batches: Batches, after_batch: Callable[[], None] = lambda: None
) -> float:
    """Return the bound (beta 1) of held-out data in mean nats per datum, with noise that is the same each time."""
    total, count = 0.0, 0
    with evaluating(program), fork_rng(batches.device, batches.ranks.seed(batches.seed)):
        for number, batch in enumerate(batches.epoch(0)):
            if not batch.counts:
                continue
            check_batch(program, batches, batch, number)
            if isinstance(estimator, Estimator):
                total += float(estimator.per_datum(program.model, program.guide, *batch).double().sum())
            else:
                total -= float(estimator.loss(program.model, program.guide, *batch))
            count += batch[0].shape[0]
            after_batch()
    total, count = batches.ranks.all_reduce_sum(total, count)
    return total / count
