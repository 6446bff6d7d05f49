"""Callbacks, which run after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch

from pyro_vae._util.validation import check_int, check_number
from pyro_vae.programs.program import Program

__all__ = ["Callback", "EarlyStopping", "Log"]


class Callback:
    """Base class of objects that ``fit`` calls after each epoch and at the end of the training.

    For logging, a plain function ``(metrics, step)`` is enough.

    Example:
        >>> import pyro_vae as pv
        >>> class StopAfter3(Callback):
        ...     def on_epoch_end(self, program, metrics):
        ...         return metrics["epoch"] == 2
        >>> toy = pv.testing.LinearGaussian()
        >>> len(pv.fit(toy.program, toy.draw(64), epochs=50, callbacks=[StopAfter3()], progress=False))
        3
    """

    #: Whether it needs ``valid_bound``, and thus ``fit(..., valid=...)``.
    needs_valid: ClassVar[bool] = False

    def on_epoch_end(self, program: Program, metrics: dict[str, Any]) -> bool:
        """Receive the metrics of an epoch; return True to stop the training."""
        return False

    def on_train_end(self, program: Program) -> None:
        """Clean up; called however the training ends."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint saves, as plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""


class EarlyStopping(Callback):
    """Stop when the validation bound has not improved for some epochs, and restore the best weights.

    The bound is that at beta 1, even if the estimator has a schedule of beta.

    Args:
        patience: number of epochs without improvement after which the training stops
        min_delta: smallest increase of the bound, in nats per example, that is an improvement
        start_epoch: number of epochs at the beginning that are not counted, such as those of a KL warm-up

    Raises:
        ValueError: an argument is out of range; or ``fit`` was called without ``valid``.

    Example:
        >>> import torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> stop = pv.training.EarlyStopping(patience=2)
        >>> x = toy.draw(64)
        >>> history = pv.fit(toy.program, x, valid=x, epochs=50, callbacks=[stop], progress=False)
        >>> len(history) < 50
        True
    """

    needs_valid = True

    def __init__(self, patience: int = 10, *, min_delta: float = 0.0, start_epoch: int = 0) -> None:
        self.patience = check_int("patience", patience)
        self.min_delta = check_number("min_delta", min_delta, 0)
        self.start_epoch = check_int("start_epoch", start_epoch, 0)
        self.best, self.best_epoch = -float("inf"), 0
        self.weights: dict[str, torch.Tensor] = {}

    def on_epoch_end(self, program: Program, metrics: dict[str, Any]) -> bool:
        """Copy the weights if the bound has improved; return True once patience is exceeded."""
        if metrics["valid_bound"] > self.best + self.min_delta:
            self.best, self.best_epoch = metrics["valid_bound"], metrics["epoch"]
            self.weights = {k: v.detach().clone() for k, v in program.state_dict().items()}
        return metrics["epoch"] - max(self.best_epoch, self.start_epoch) >= self.patience

    def on_train_end(self, program: Program) -> None:
        """Restore the best weights."""
        if self.weights:
            program.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the best bound, its epoch and its weights."""
        return {"best": self.best, "best_epoch": self.best_epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best bound, its epoch and its weights."""
        self.best, self.best_epoch, self.weights = state["best"], state["best_epoch"], state["weights"]


class Log(Callback):
    """A function ``(metrics, step)`` as a callback; it stops the training if it returns a true value."""

    def __init__(self, function: Callable[[dict[str, Any], int], Any]) -> None:
        self.function = function

    def on_epoch_end(self, program: Program, metrics: dict[str, Any]) -> bool:
        """Call the function."""
        return bool(self.function(dict(metrics), metrics["step"]))
