"""Callbacks, which run after each epoch or after some steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

from pyro_vae._util.describe import Described, describe
from pyro_vae._util.validation import check_int, check_number, is_bool
from pyro_vae.programs.program import Program

__all__ = ["Callback", "EarlyStopping", "Log", "as_callbacks", "stops"]


class Callback(Described):
    """Base class of objects that ``fit`` calls at the start, after each epoch, after some steps, and at the end.

    The state of a callback belongs to one run: a subclass sets it in :meth:`on_train_start`, so that an object that is
    used in a second run starts again. For logging, a plain function ``(metrics, step)`` is enough.

    Args:
        every: number of steps after which :meth:`on_step_end` is called; never if None

    Example:
        >>> import pyro_vae as pv
        >>> class StopAfter3(Callback):
        ...     def on_epoch_end(self, program, metrics):
        ...         return metrics["epoch"] == 2
        >>> toy = pv.testing.LinearGaussian()
        >>> len(pv.fit(toy.program, toy.draw(64), epochs=50, callbacks=[StopAfter3()], progress=False))
        3
    """

    def __init__(self, *, every: int | None = None) -> None:
        self.every = None if every is None else check_int("every", every)

    def on_train_start(self, program: Program, *, has_valid: bool) -> None:
        """Forget the state of an earlier run; called before the first step, and before a checkpoint is restored.

        Args:
            program: the program that is trained
            has_valid: whether there is a validation bound, ``valid_bound`` in the metrics of an epoch
        """

    def on_step_end(self, program: Program, metrics: dict[str, Any]) -> bool | None:
        """Receive the metrics of one step, means in nats per example; return True to stop the training."""
        return False

    def on_epoch_end(self, program: Program, metrics: dict[str, Any]) -> bool | None:
        """Receive the metrics of an epoch; return True to stop the training."""
        return False

    def on_train_end(self, program: Program) -> None:
        """Clean up; called however the training ends."""

    def settings(self) -> dict[str, Any]:
        """Return the options that a resumed run must share, as plain values: by default all of the constructor."""
        return describe(self).get("options", {})

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

    Attributes:
        best: best validation bound of the latest run, in nats per example
        best_epoch: its epoch, from 0
        weights: the weights after that epoch, by name

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

    def __init__(self, patience: int = 10, *, min_delta: float = 0.0, start_epoch: int = 0) -> None:
        super().__init__()
        self.patience = check_int("patience", patience)
        self.min_delta = check_number("min_delta", min_delta, 0)
        self.start_epoch = check_int("start_epoch", start_epoch, 0)
        self.best, self.best_epoch = -float("inf"), 0
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_start(self, program: Program, *, has_valid: bool) -> None:
        """Forget the best weights of an earlier run."""
        if not has_valid:
            raise ValueError("callbacks: EarlyStopping needs a validation bound: pass `valid=` to fit")
        self.best, self.best_epoch, self.weights = -float("inf"), 0, {}

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
    """A function ``(metrics, step)`` that is called after each epoch, or after every so many steps.

    It stops the training by returning True (of Python, numpy or torch), and continues it by returning None or False;
    anything else is an error. ``fit`` takes plain functions too, and calls them after each epoch. Of several processes
    only the first one calls the function.

    Args:
        function: called with the metrics as a dict, and with the number of steps so far
        every: number of steps between two calls; None for a call after each epoch. Reading the metrics waits for the
            device

    Raises:
        TypeError: ``function`` cannot be called with two arguments.

    Example:
        >>> import pyro_vae as pv
        >>> toy, seen = pv.testing.LinearGaussian(), []
        >>> log = pv.training.Log(lambda metrics, step: seen.append(step), every=2)
        >>> history = pv.fit(toy.program, toy.draw(60), batch_size=10, epochs=1, callbacks=[log], progress=False)
        >>> seen
        [2, 4, 6]
    """

    def __init__(self, function: Callable[[dict[str, Any], int], Any], *, every: int | None = None) -> None:
        super().__init__(every=every)
        if not takes_metrics(function):
            raise TypeError(not_a_callback(function))
        self.function = function

    def on_step_end(self, program: Program, metrics: dict[str, Any]) -> Any:
        """Call the function."""
        return self.function(dict(metrics), metrics["step"])

    def on_epoch_end(self, program: Program, metrics: dict[str, Any]) -> Any:
        """Call the function unless it is called after steps."""
        return self.function(dict(metrics), metrics["step"]) if self.every is None else False


def as_callbacks(callbacks: Any, *, first_rank: bool) -> list[Callback]:
    """Return functions and callbacks as callbacks; raise if one is neither.

    Functions write or print: of several ranks only the first one calls them. All ranks call the callbacks.
    """
    if not isinstance(callbacks, Iterable):
        raise TypeError(not_a_callback(callbacks))
    called = [c if isinstance(c, Callback) else Log(c) for c in callbacks]
    return [Log(ignore, every=c.every) if isinstance(c, Log) and not first_rank else c for c in called]


def takes_metrics(function: Any) -> bool:
    """Whether something is a function that can be called with metrics and step."""
    if isinstance(function, type) or not callable(function):
        return False
    try:
        inspect.signature(function).bind({}, 0)
    except TypeError:
        return False
    except ValueError:  # a function written in C, without a signature
        return True
    return True


def not_a_callback(given: Any) -> str:
    """Return the text of the error about something other than a callback."""
    return (
        "callbacks: expected a list of functions (metrics, step) and of objects such as "
        f"pyro_vae.training.EarlyStopping(), got {given!r}"
    )


def ignore(metrics: dict[str, Any], step: int) -> None:
    """Do nothing: the function of a callback on ranks other than the first one."""


def stops(callback: Callback, answer: Any) -> bool:
    """Return whether a callback stops the training, given what it returned.

    Raises:
        TypeError: it returned neither None nor a bool of Python, numpy or torch.
    """
    if answer is None or (is_bool(answer) and not getattr(answer, "ndim", 0)):
        return bool(answer)
    name = getattr(getattr(callback, "function", None), "__qualname__", type(callback).__name__)
    raise TypeError(
        f"callbacks: expected None or a bool from {name} (True stops the training), got {answer!r}. Return None from "
        "a function that only logs"
    )
