"""The state of a training run as one object, which checkpoints save and resumed runs compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, is_dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import Program
from pyro_vae.training.callbacks import Callback
from pyro_vae.training.checkpoint.serialization import unshared
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.svi import SVI

__all__ = ["LastGood", "TrainingState", "check_settings", "check_weights", "settings_of"]


@dataclass
class TrainingState:
    """All state that survives a training step, except the weights of the program: plain values and tensors.

    Args:
        settings: settings that a resumed run must share, by name
        epoch: number of complete epochs
        batch: number of complete batches of the next epoch
        count: number of examples in these batches
        totals: sums of the metrics over these batches
        stopped: whether a callback stopped the training
        seconds: training time so far
        engine: state of the SVI: steps, optimizer, estimator
        random: random state of each rank, ``now`` and ``at_start`` of the present epoch
        callbacks: state of each callback that has one
        rows: rows of the history

    Raises:
        ValueError: a value is malformed.
    """

    settings: dict[str, Any]
    epoch: int
    batch: int
    count: int
    totals: dict[str, Tensor]
    stopped: bool
    seconds: float
    engine: dict[str, Any]
    random: list[dict[str, Any]]
    callbacks: list[dict[str, Any]]
    rows: list[dict[str, Any]]

    def __post_init__(self) -> None:
        for name in ("epoch", "batch", "count", "steps"):
            check_int(name, getattr(self, name), 0, 2**53)
        if not self.random:
            raise ValueError("random: expected the random state of at least one rank")
        self.settings, self.rows = dict(self.settings), [dict(row) for row in self.rows]
        self.stopped, self.seconds = bool(self.stopped), float(self.seconds)

    @property
    def steps(self) -> int:
        """Number of steps so far."""
        return self.engine["steps"]


def settings_of(
    svi: SVI, batches: Batches, held_out: Batches | None, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Return the settings that a resumed run must share, as plain values by name."""
    settings = {
        "program": type(svi.program).__name__,
        "estimator": type(svi.estimator).__name__,
        "optimizer": type(svi.optim.torch).__name__,
        "clip_norm": svi.optim.clip_norm,
        "compile": svi.compiler is not None,
        "precision": None if isinstance(svi.precision, nullcontext) else repr(svi.precision),
        "skip_nonfinite": svi.skip_nonfinite,
        "batch_size": batches.batch_size,
        "seed": batches.seed,
        "data": described(batches),
        "valid": None if held_out is None else described(held_out),
        "callbacks": ", ".join(type(callback).__name__ for callback in callbacks if callback.state_dict()),
    }
    options = {f"optimizer {name}": value for name, value in svi.optim.torch.defaults.items()}
    options["lr_schedule"] = svi.optim.lr_schedule
    if isinstance(svi.estimator, Estimator):
        settings_only = {name: v for name, v in vars(svi.estimator).items() if name != "step" and name[0] != "_"}
        options |= {f"estimator {name}": value for name, value in settings_only.items()}
    # schedules are dataclasses, compared by their repr
    options = {name: repr(value) if is_dataclass(value) else value for name, value in options.items()}
    return settings | {name: value for name, value in options.items() if is_plain(value)}


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a string, None or a tuple of these."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (Real, str))


def described(batches: Batches) -> str:
    """Return number, shape and type of the examples as text."""
    if batches.loader is not None:
        return f"a loader of {len(batches)} examples"
    with fork_rng(batches.device):
        parts = next(batches.take([np.arange(1)]))
    return f"{len(batches)} rows of " + " and ".join(f"{tuple(x.shape[1:])} {x.dtype}" for x in parts)


def check_settings(settings: Mapping[str, Any], saved: Mapping[str, Any], path: Path) -> None:
    """Raise if a run is resumed with other settings than those of its checkpoint.

    Raises:
        ValueError: the settings differ; the message names them.
    """
    names = [name for name in {**saved, **settings} if saved.get(name) != settings.get(name)]
    if names:
        differences = ", ".join(f"{name} {saved.get(name)} (now {settings.get(name)})" for name in names)
        raise ValueError(
            f"resume: {path} was saved with {differences}. Resume with the same settings, or train from scratch in "
            "another folder"
        )


def check_weights(program: Program, saved: Mapping[str, Tensor], path: Path) -> None:
    """Raise if a checkpoint contains the weights of another program.

    Raises:
        ValueError: names, shapes or types differ; the message lists them.
    """
    own = program.state_dict()
    differences = {
        "missing": sorted(own.keys() - saved.keys()),
        "unknown": sorted(saved.keys() - own.keys()),
        "of another shape or type": [
            f"{name} {tuple(saved[name].shape)} {saved[name].dtype} (now {tuple(value.shape)} {value.dtype})"
            for name, value in own.items()
            if name in saved and (saved[name].shape, saved[name].dtype) != (value.shape, value.dtype)
        ],
    }
    text = "; ".join(f"{what}: {', '.join(names)}" for what, names in differences.items() if names)
    if text:
        raise ValueError(f"resume: {path} contains the weights of another program; {text}")


class LastGood:
    """Copies of the weights to return to after a loss or gradient that is not finite.

    A finite step can lead to weights whose loss is not finite, so a copy is good once a later step was finite.

    Args:
        program: the program with the weights
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.good = self.candidate = (0, unshared(program.state_dict()))

    def keep(self, step: int) -> None:
        """Copy the weights after ``step`` finite steps."""
        if step > self.candidate[0]:
            self.good, self.candidate = self.candidate, (step, unshared(self.program.state_dict()))

    def restore(self) -> None:
        """Load the last good weights."""
        self.program.load_state_dict(self.good[1])
