"""The state of a training run as one object, which checkpoints save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.programs.program import Program
from pyro_vae.training.checkpoint.serialization import unshared

__all__ = ["LastGood", "TrainingState", "check_weights"]


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


def check_weights(program: Program, saved: Mapping[str, Tensor], path: Path, *, argument: str = "resume") -> None:
    """Raise if a checkpoint contains the weights of another program; ``argument`` is what the user passed.

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
        raise ValueError(f"{argument}: {path} contains the weights of another program; {text}")


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
