"""The same program trained under several estimators, with the same budget."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.laboratory.budgets import Budget, Spent
from pyro_vae.evaluation.laboratory.names import named
from pyro_vae.evaluation.likelihood.log_likelihood import log_likelihood
from pyro_vae.evaluation.result import Result, number, paired
from pyro_vae.programs.program import Program
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.check import check_rows
from pyro_vae.training.svi import SVI, NonFiniteError

__all__ = ["Curve", "Point", "TrainingComparison", "train_under"]


@dataclass
class Point(Spent):
    """The validation log-likelihood at one time of a training, in mean nats per example, and its error."""

    log_likelihood: float = float("nan")
    error: float = float("nan")


@dataclass
class Curve:
    """One training: its points, why it ended early (or empty), and the log-likelihoods of the examples at its end."""

    name: str
    points: list[Point] = field(default_factory=list)
    failure: str = ""
    per_example: Tensor | None = None


@dataclass(frozen=True)
class TrainingComparison(Result, plot="training_comparison"):
    """The curves of :func:`train_under`.

    Attributes:
        curves: one per estimator, in the given order
        budget: the budget of each training, such as ``"100 steps"``
        num_particles: particles of the validation log-likelihoods
    """

    curves: list[Curve]
    budget: str
    num_particles: int

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per point of each curve."""
        return [
            {"estimator": curve.name, **asdict(point), "failure": curve.failure}
            for curve in self.curves
            for point in curve.points
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return the end of each training."""
        return [
            {
                "estimator": curve.name,
                "steps": f"{end.steps:,}",
                "particles": f"{end.particles:,}",
                "seconds": f"{end.seconds:.1f}",
                "validation log-likelihood": number(end.log_likelihood, end.error, 5),
                "": curve.failure,
            }
            for curve in self.curves
            for end in curve.points[-1:]
        ]

    def heading(self) -> str:
        """Return the budget."""
        return f"after {self.budget} from the same weights; log-likelihood with {self.num_particles:,} particles"

    def notes(self) -> str:
        """Return which estimator trained best, and how far the others are behind on the same examples."""
        done = [curve for curve in self.curves if curve.per_example is not None and not curve.failure]
        if len(done) < 2:
            return ""
        first, *others = sorted(done, key=lambda curve: -curve.points[-1].log_likelihood)
        close, behind = [], []
        for curve in others:
            apart, error = paired(first.per_example, curve.per_example)
            (close if apart <= 2 * error else behind).append(f"{curve.name} by {number(apart, error)}")
        sentences = [f"best after {self.budget}: {first.name}"]
        sentences += [f"above {', '.join(behind)} nats per example"] if behind else []
        sentences += [f"not clearly above {', '.join(close)}"] if close else []
        return f"{'; '.join(sentences)} (paired over {len(first.per_example):,} examples, one training each)"


@in_turn
def train_under(
    program: Program,
    data: Any,
    estimators: Mapping[str, PyroELBO] | Iterable[PyroELBO],
    *,
    budget: Budget,
    valid: Any,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    batch_size: int = 128,
    num_points: int = 10,
    num_particles: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> TrainingComparison:
    """Train copies of a program under several estimators, from the same weights and on the same batches.

    Args:
        program: a Program with its initial weights
        data: rows of data, as in ``fit``
        estimators: of ``pyro_vae.estimators`` or of ``pyro.infer``; a mapping gives them names
        budget: ``Steps(n)``, ``Particles(n)`` or ``Seconds(n)``, the same for each
        valid: validation data
        optimizer: as in ``fit``, one for each estimator
        batch_size: examples per step
        num_points: points of each curve after the first step, equally spaced in the budget
        num_particles: particles of the validation log-likelihood
        seed: random seed, also of the order of the data
        progress: show a progress bar

    Returns:
        The curves. A training with a loss or gradient that is not finite ends early, with the reason.

    Raises:
        ValueError: the data do not fit the program.
        TypeError: ``budget`` is not Steps, Particles or Seconds.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> both = [pv.estimators.ELBO(), pv.estimators.IWAE(num_particles=8)]
        >>> found = train_under(
        ...     toy.program, toy.draw(64), both, budget=pv.evaluation.Steps(4), valid=toy.draw(16), num_points=2
        ... )
        >>> [len(curve.points) for curve in found.curves]
        [3, 3]
    """
    if not isinstance(budget, Budget):
        raise TypeError(f"budget: expected Steps(n), Particles(n) or Seconds(n), got {budget!r}")
    num_points = check_int("num_points", num_points)
    batches = Batches.of(program, data, batch_size=batch_size, seed=seed)
    check_rows(program, batches, progress=progress)
    optimizer = partial(torch.optim.Adam, lr=1e-3) if optimizer is None else optimizer
    curves = []
    chosen = named(estimators)
    with progress_bar(total=len(chosen) * num_points, unit="point", progress=progress) as bar:
        for name, estimator in chosen.items():
            bar.set_description(name)
            copied = copy.deepcopy(program).train()
            svi = SVI(copied, copy.deepcopy(estimator), optimizer)
            curve = Curve(name)
            curves.append(curve)
            try:
                with fork_rng(program.device, seed):
                    for spent in train(svi, batches, budget, num_points):
                        found = log_likelihood(copied, valid, num_particles=num_particles, seed=seed, progress=False)
                        error, curve.per_example = found.monte_carlo_error, found.per_example
                        curve.points.append(Point(**asdict(spent), log_likelihood=found.mean, error=error))
                        bar.update(len(curve.points) > 1)
            except NonFiniteError as failure:
                curve.failure = str(failure)
    batches.close()
    return TrainingComparison(curves, str(budget), num_particles)


def train(svi: SVI, batches: Batches, budget: Budget, num_points: int) -> Iterator[Spent]:
    """Train until the budget is used; yield before the first step and at each point of the curve."""
    spent, reached = Spent(), 0
    yield spent
    for batch in (batch for epoch in count() for batch in batches.epoch(epoch)):
        start = time.perf_counter()
        svi.update(*batch)
        spent.seconds += time.perf_counter() - start
        spent.steps += 1
        spent.particles += len(batch[0]) * svi.estimator.num_particles
        # floating-point rounding must not delay a point by one step
        due = int(budget.used(spent) * num_points + 1e-9)
        if due > reached:
            start = time.perf_counter()
            svi.raise_if_nonfinite(batch)
            spent.seconds += time.perf_counter() - start
            yield spent
            reached = due
        if reached >= num_points:
            return
