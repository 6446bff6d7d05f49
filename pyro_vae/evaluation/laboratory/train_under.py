"""The same program trained under several estimators."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.laboratory.budgets import Budget, Spent
from pyro_vae.evaluation.laboratory.compare import named
from pyro_vae.evaluation.laboratory.table import aligned, latex, number, write_csv, write_json
from pyro_vae.evaluation.likelihood.log_likelihood import log_likelihood
from pyro_vae.programs.program import Program
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.svi import SVI, NonFiniteError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curve", "Point", "TrainingComparison", "train_under"]


@dataclass(frozen=True)
class Point:
    """The held-out log-likelihood at one time of a training, in mean nats per datum."""

    steps: int
    particles: int
    seconds: float
    log_likelihood: float
    error: float


@dataclass
class Curve:
    """One training; ``failure`` says why it ended early, where it did."""

    name: str
    points: list[Point] = field(default_factory=list)
    failure: str = ""


@dataclass(frozen=True)
class TrainingComparison:
    """The curves of :func:`train_under`: they print, export and plot themselves.

    Attributes:
        curves: one an estimator, in the order in which they were given
        budget: what each got, in words
        num_particles: of the held-out log-likelihoods
    """

    curves: list[Curve]
    budget: str
    num_particles: int

    def last(self) -> list[dict[str, Any]]:
        """Return what is shown: where each training ended."""
        return [
            {
                "estimator": curve.name,
                "steps": f"{end.steps:,}",
                "particles": f"{end.particles:,}",
                "seconds": f"{end.seconds:.1f}",
                "held-out log-likelihood": number(end.log_likelihood, end.error, 5),
                "": curve.failure,
            }
            for curve in self.curves
            for end in curve.points[-1:]
        ]

    def __str__(self) -> str:
        head = f"after {self.budget} from the same weights; log-likelihood by {self.num_particles:,} particles"
        return f"{head}\n\n{aligned(self.last())}"

    def to_csv(self, path: str | Path) -> None:
        """Write one line for each point of each curve."""
        write_csv([{"estimator": c.name, **asdict(point)} for c in self.curves for point in c.points], path)

    def to_json(self, path: str | Path) -> None:
        """Write all curves."""
        write_json(asdict(self), path)

    def to_latex(self, path: str | Path) -> None:
        """Write where each training ended, for LaTeX with the package booktabs."""
        Path(path).write_text(latex(self.last()), encoding="utf-8")

    def plot(self) -> Figure:
        """Draw the held-out log-likelihoods against steps and seconds."""
        from pyro_vae.plots import training_comparison

        return training_comparison(self)


def train_under(
    program: Program,
    data: Any,
    estimators: Mapping[str, PyroELBO] | Iterable[PyroELBO],
    *,
    budget: Budget,
    valid: Any,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    batch_size: int = 128,
    points: int = 10,
    num_particles: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> TrainingComparison:
    """Train copies of a program under several estimators, from the same weights, on the same batches.

    The program, the estimators and the random streams are left as they were.

    Args:
        program: a Program with its first weights
        data: rows of data, as in ``fit``
        estimators: of ``pyro_vae.estimators`` or of ``pyro.infer``; a mapping gives them names
        budget: ``Steps(n)``, ``Particles(n)`` or ``Seconds(n)``, the same for each
        valid: held-out data
        optimizer: as in ``fit``, made anew for each estimator
        batch_size: data a step
        points: of each curve, beside the one before the first step, equally spaced in the budget
        num_particles: of the held-out log-likelihood
        seed: of the order of the data and of all noise
        progress: show a progress bar

    Returns:
        The curves. One that meets a loss or gradient that is not finite ends there and says so.

    Raises:
        ValueError: the data do not fit the program.
        TypeError: ``budget`` is not Steps, Particles or Seconds.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> both = [pv.estimators.ELBO(), pv.estimators.IWAE(num_particles=8)]
        >>> found = train_under(
        ...     toy.program, toy.draw(64), both, budget=pv.evaluation.Steps(4), valid=toy.draw(16), points=2
        ... )
        >>> [len(curve.points) for curve in found.curves]
        [3, 3]
    """
    if not isinstance(budget, Budget):
        raise TypeError(f"budget: expected Steps(n), Particles(n) or Seconds(n), got {budget!r}")
    check_int("points", points)
    first = next(program.parameters(), torch.zeros(()))
    batches = Batches(data, batch_size=batch_size, seed=seed, device=first.device, dtype=first.dtype)
    for chunk in batches.chunks():
        program.check(*chunk)
    optimizer = partial(torch.optim.Adam, lr=1e-3) if optimizer is None else optimizer
    curves = []
    chosen = named(estimators)
    with progress_bar(total=len(chosen) * points, unit="point", progress=progress) as bar:
        for name, estimator in chosen.items():
            bar.set_description(name)
            copied = copy.deepcopy(program).train()
            svi = SVI(copied, copy.deepcopy(estimator), optimizer)
            curve = Curve(name)
            curves.append(curve)
            try:
                with fork_rng(first.device, seed):
                    for spent in train(svi, batches, budget, points):
                        found = log_likelihood(copied, valid, num_particles=num_particles, seed=seed)
                        curve.points.append(
                            Point(**asdict(spent), log_likelihood=found.mean, error=found.monte_carlo_error)
                        )
                        bar.update(len(curve.points) > 1)
            except NonFiniteError as error:
                curve.failure = str(error)
    return TrainingComparison(curves, f"{budget.amount:,} {budget.unit}", num_particles)


def train(svi: SVI, batches: Batches, budget: Budget, points: int) -> Iterator[Spent]:
    """Train until the budget is used, and stop before the first step and for each point of the curve."""
    spent, reached = Spent(), 0
    yield spent
    for batch in endless(batches):
        start = time.perf_counter()
        svi.update(*batch)
        spent.seconds += time.perf_counter() - start
        spent.steps += 1
        spent.particles += len(batch[0]) * svi.estimator.num_particles
        # the budget may be a fraction of a step away from a point
        due = int(budget.used(spent) * points + 1e-9)
        if due > reached:
            start = time.perf_counter()
            svi.raise_if_nonfinite(batch)
            spent.seconds += time.perf_counter() - start
            yield spent
            reached = due
        if reached >= points:
            return


def endless(batches: Batches) -> Iterator[tuple[Tensor, ...]]:
    """Yield the batches of one epoch after another."""
    for epoch in count():
        yield from batches.epoch(epoch)
