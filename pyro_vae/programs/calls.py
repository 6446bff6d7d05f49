"""The calls of the parts of a program during its check, and errors that name the part."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.conditional import Conditional
from pyro_vae.nets.contract import NetError

__all__ = ["Calls"]


class Calls:
    """A context that checks each call of a part of a program, and adds the name of the part to errors of its network.

    Args:
        program: a Program

    Attributes:
        last: the part that was called last and its distribution, None if that has been used
    """

    def __init__(self, program: nn.Module) -> None:
        self.program = program
        # a part that is also inside another part (such as the posterior of a VampPrior) has its outermost name
        modules = sorted(program.named_modules(remove_duplicate=False), key=lambda item: -item[0].count("."))
        self.names = {module: name for name, module in modules}
        self.last: tuple[Conditional, Distribution] | None = None

    def __enter__(self) -> Calls:
        parts = [module for module in self.names if isinstance(module, Conditional)]
        self.hooks = [part.register_forward_pre_hook(self.check_inputs, with_kwargs=True) for part in parts]
        self.hooks += [part.register_forward_hook(self.check_result) for part in parts]
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        if isinstance(error, NetError):
            raise error.of(self.label(self.owner(error.net)), self.advice(error)) from None

    def label(self, module: nn.Module) -> str:
        """Return name and class of a module of the program."""
        return f"{self.names[module]} {type(module).__name__}"

    def owner(self, net: nn.Module) -> nn.Module:
        """Return the innermost part that a network belongs to, or the network itself."""
        parts = [part for part in self.names if isinstance(part, Conditional) and net in set(part.modules())]
        return min(parts, key=lambda part: len(list(part.modules())), default=net)

    def advice(self, error: NetError) -> str:
        """Return what to do about an input of a wrong shape, which is that of an earlier part or of the data."""
        if error.given is None:
            return ""
        if self.last is not None:
            part, fn = self.last
            if fn.event_shape == error.given[len(error.given) - len(fn.event_shape) :]:
                return f"It is given the latents of {self.label(part)}: build both with the same `latent`"
        return "Build it with the `shape` of one example of its input"

    def check_inputs(self, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise if a part does not take its arguments."""
        try:
            inspect.signature(part.forward).bind(*args, **kwargs)
        except TypeError as error:
            raise ValueError(
                f"context: expected {self.label(part)} to take {len(args)} arguments (z or x, then the context of the "
                f"data), but its forward{inspect.signature(part.forward)} does not: {error}. Write "
                "forward(self, z, *context), or pass data without a context"
            ) from error

    def check_result(self, part: Any, args: tuple[Any, ...], fn: Any) -> None:
        """Raise if a part does not return a distribution with one batch entry per row."""
        if not isinstance(fn, Distribution):
            raise ValueError(
                f"{self.label(part)}: expected forward to return a Pyro distribution, got {type(fn).__name__}. Return "
                "for example pyro.distributions.Normal(loc, scale).to_event(1)"
            )
        given = [a.shape for a in args if isinstance(a, Tensor)]
        if not leads(fn.batch_shape, given):
            inputs = f"the leading dimensions of its inputs {[tuple(s) for s in given]}" if given else "()"
            raise ValueError(
                f"{self.label(part)}: expected batch shape {inputs}, got {tuple(fn.batch_shape)} and event shape "
                f"{tuple(fn.event_shape)}. Declare the dimensions of one example or latent by `.to_event(1)`"
            )
        self.last = part, fn


def leads(batch: torch.Size, shapes: Sequence[torch.Size]) -> bool:
    """Return whether a batch shape is that of the leading dimensions of the inputs; a context has one more."""
    if not shapes or not batch:
        return not batch
    if any(shape[: len(batch)] == batch for shape in shapes):
        return True
    for cut in range(len(shapes[0]) + 1):
        try:
            if torch.broadcast_shapes(shapes[0][:cut], *(shape[:-1] for shape in shapes[1:])) == batch:
                return True
        except RuntimeError:
            continue
    return False
