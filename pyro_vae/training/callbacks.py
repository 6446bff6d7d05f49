"""What may happen after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch

from pyro_vae._util.validation import check_int
from pyro_vae.programs.program import Program

__all__ = ["Callback", "EarlyStopping", "Log"]


class Callback:
    """Called by ``fit`` after each epoch and at the end.

    A plain function ``(metrics, step)`` serves as well, for logging.

    Example:
        >>> import pyro_vae as pv
        >>> class UpToEpoch2(Callback):
        ...     def epoch(self, program, metrics):
        ...         return metrics["epoch"] == 2
        >>> toy = pv.testing.LinearGaussian()
        >>> pv.fit(toy.program, toy.draw(64), epochs=50, callbacks=[UpToEpoch2()], progress=False).epochs
        3
    """

    #: Whether it reads ``valid_bound``, so that ``fit`` has to be given ``valid``.
    needs_valid: ClassVar[bool] = False

    def epoch(self, program: Program, metrics: dict[str, Any]) -> bool:
        """Look at the metrics of an epoch; return True to stop."""
        return False

    def end(self, program: Program) -> None:
        """Tidy up: called however training ends."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold, plain values and tensors, for a resumed run to go on the same."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""


class EarlyStopping(Callback):
    """Stop when the validation bound has not risen for a while, and go back to the best weights.

    The bound is taken at beta 1, whatever the schedule of the estimator.

    Args:
        patience: epochs without a better bound before it stops
        min_rise: nats per datum by which a bound has to be better to count
        start: epochs at the beginning that do not count against the patience (while a KL warm-up lasts)

    Raises:
        ValueError: patience below 1; or ``fit`` was given no ``valid``.

    Example:
        >>> import torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> stop = pv.training.EarlyStopping(patience=2)
        >>> x = toy.draw(64)
        >>> history = pv.fit(toy.program, x, valid=x, epochs=50, callbacks=[stop], progress=False)
        >>> history.epochs < 50
        True
    """

    needs_valid = True

    def __init__(self, patience: int = 10, *, min_rise: float = 0.0, start: int = 0) -> None:
        check_int("patience", patience)
        self.patience, self.min_rise, self.start = patience, min_rise, start
        self.best, self.best_epoch = -float("inf"), 0
        self.weights: dict[str, torch.Tensor] = {}

    def epoch(self, program: Program, metrics: dict[str, Any]) -> bool:
        """Keep the weights of a better bound; stop when patience is over."""
        if metrics["valid_bound"] > self.best + self.min_rise:
            self.best, self.best_epoch = metrics["valid_bound"], metrics["epoch"]
            self.weights = {k: v.detach().clone() for k, v in program.state_dict().items()}
        return metrics["epoch"] - max(self.best_epoch, self.start) >= self.patience

    def end(self, program: Program) -> None:
        """Put the best weights back."""
        if self.weights:
            program.load_state_dict(self.weights)

    def state(self) -> dict[str, Any]:
        """Return the best bound, its epoch and its weights."""
        return {"best": self.best, "best_epoch": self.best_epoch, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the best so far."""
        self.best, self.best_epoch, self.weights = state["best"], state["best_epoch"], state["weights"]


class Log(Callback):
    """A function ``(metrics, step)`` as a callback."""

    def __init__(self, function: Callable[[dict[str, Any], int], Any]) -> None:
        self.function = function

    def epoch(self, program: Program, metrics: dict[str, Any]) -> bool:
        """Call the function."""
        return bool(self.function(dict(metrics), metrics["step"]))
