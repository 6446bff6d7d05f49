"""The optimizer of a recorded step: torch's own update rules, on parameters that lie in flat tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.training.adam import Adam
from pyro_vae.training.compile.layout import Layout

__all__ = ["ELEMENTWISE", "FlatOptimizer", "FlatUpdate", "Unsupported"]

#: Optimizers that update each number on its own, so that many parameters can lie in one flat tensor.
ELEMENTWISE = (
    Adam,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.SGD,
)

#: Optimizers that would wait for a learning rate that is a tensor. Their step is the rate times a direction.
RATE_TIMES_DIRECTION = (torch.optim.RMSprop, torch.optim.SGD)

#: State that an optimizer keeps once per parameter; it keeps all other state once per number.
COUNTS = ("step", "mu_product")

#: Numbers above which it costs more to copy a gradient next to the others than to update its parameter separately.
LARGE = 2**15


class Unsupported(RuntimeError):
    """Why a step cannot be compiled."""


class FlatOptimizer:
    """An optimizer whose parameters and state are laid out in flat tensors, until :meth:`release`.

    Parameters and state remain the same objects, now as views: code outside reads and changes the same numbers.
    Each large parameter has a flat tensor of its own, all small ones of a parameter group share one.

    Args:
        optimizer: has taken a step, so that its state exists
        used: the parameters that get a gradient

    Raises:
        Unsupported: the optimizer is unknown, or something is called in each step that a recorded step leaves out.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, used: Sequence[nn.Parameter]) -> None:
        if type(optimizer) not in ELEMENTWISE:
            raise Unsupported(f"optimizer {type(optimizer).__name__}: known are {[c.__name__ for c in ELEMENTWISE]}")
        hooks = [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
        if any(hooks) or any(p._backward_hooks or p._post_accumulate_grad_hooks for p in used):
            raise Unsupported("the optimizer or a parameter has hooks, which a recorded step does not call")
        if len({(p.dtype, p.device) for p in used}) > 1:
            raise Unsupported("the parameters have several dtypes or devices")
        ids = {id(p) for p in used}
        self.groups = [
            Group(optimizer, group, together)
            for group in optimizer.param_groups
            for together in together_in([p for p in group["params"] if id(p) in ids], optimizer)
        ]
        self.parameters = [p for group in self.groups for p in group.parameters]
        for group in self.groups:
            group.lay_out()
        self.places = [p.data_ptr() for p in self.parameters]
        self.settings = list({id(g.options): (g.options, g.constants) for g in self.groups}.values())

    def tensors(self) -> list[Tensor]:
        """Return what a step takes as arguments: the learning rates and all flat tensors."""
        return [*(group.lr for group in self.groups), *(t for group in self.groups for t in group.flat)]

    def is_current(self) -> bool:
        """Whether options are as recorded, no parameter was frozen, and none has other memory (``p.data = ...``)."""
        same = all(options.items() >= constants.items() for options, constants in self.settings)
        return same and all(
            p.requires_grad and p.data_ptr() == place for p, place in zip(self.parameters, self.places, strict=True)
        )

    def release(self) -> None:
        """Give each parameter, and each tensor of the optimizer's state, memory of its own."""
        for group in self.groups:
            group.release()


def together_in(parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> list[list[nn.Parameter]]:
    """Return which parameters are updated together: each large one alone, and small ones with equally many steps.

    A parameter that was frozen has had fewer steps.
    """
    together: dict[Any, list[nn.Parameter]] = {}
    for p in parameters:
        key = id(p) if p.numel() > LARGE else counts_of(optimizer.state[p])
        together.setdefault(key, []).append(p)
    return list(together.values())


def counts_of(state: dict[str, Any]) -> tuple[float, ...]:
    """Return the counts in the state of a parameter; this waits for the device, once per compilation."""
    return tuple(float(state[key]) for key in COUNTS if isinstance(state.get(key), Tensor))


class Group:
    """Parameters that are updated together.

    Args:
        optimizer: holds the state
        options: the parameter group of the optimizer that they belong to
        parameters: the parameters, at least one
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, options: dict[str, Any], parameters: Sequence[nn.Parameter]
    ) -> None:
        self.rule, self.options, self.parameters = type(optimizer), options, parameters
        self.layout = Layout(parameters)
        self.states = [optimizer.state[p] for p in parameters]
        tensors = [key for key, value in self.states[0].items() if isinstance(value, Tensor)]
        self.moments = [key for key in tensors if key not in COUNTS]
        self.counts = [key for key in tensors if key in COUNTS]
        self.constants = {key: value for key, value in options.items() if key not in ("params", "lr")}
        self.lr = torch.as_tensor(options["lr"]).to(parameters[0])
        self.learning_rate = options["lr"]

    def lay_out(self) -> None:
        """Move parameters and state into flat tensors."""
        with torch.no_grad():
            self.flat = [self.layout.join([p.detach() for p in self.parameters])]
            for p, view in zip(self.parameters, self.layout.split(self.flat[0]), strict=True):
                p.data = view
            for key in (*self.moments, *self.counts):
                values = [state[key] for state in self.states]
                self.flat.append(self.layout.join(values) if key in self.moments else torch.stack(values))
                views = self.layout.split(self.flat[-1]) if key in self.moments else self.flat[-1].unbind()
                for state, view in zip(self.states, views, strict=True):
                    state[key] = view

    def release(self) -> None:
        """Undo :meth:`lay_out`."""
        for p, state in zip(self.parameters, self.states, strict=True):
            p.data = p.data.clone()
            for key in (*self.moments, *self.counts):
                state[key] = state[key].clone()

    def read_learning_rate(self) -> None:
        """Copy the current learning rate to the device if it has changed, or is a tensor, which may have changed."""
        if self.options["lr"] is not self.learning_rate or isinstance(self.learning_rate, Tensor):
            self.learning_rate = self.options["lr"]
            self.lr.fill_(self.learning_rate)

    def updated(self, flat: Sequence[Tensor], lr: Tensor, gradient: Tensor) -> list[Tensor]:
        """Return the flat tensors after a step of torch's own rule."""
        new = [t.clone() for t in flat]
        options = {**self.constants, "lr": lr, "capturable": True, "foreach": False, "fused": False}
        parameter = new[0]
        if self.rule in RATE_TIMES_DIRECTION:
            # a step from 0 at a rate of 1 is the direction itself, once weight decay is part of the gradient
            gradient = -gradient if options["maximize"] else gradient
            gradient = gradient + options["weight_decay"] * parameter if options["weight_decay"] else gradient
            options |= {"lr": 1.0, "maximize": False, "weight_decay": 0}
            parameter = torch.zeros_like(parameter)
        parameter.grad = gradient
        rule = self.rule([parameter], lr=0.1)
        rule.param_groups[0].update(options)
        # in double precision, as torch's uncompiled rules compute their bias corrections
        counts = {key: new[i][0].double() for i, key in enumerate(self.counts, 1 + len(self.moments))}
        rule.state[parameter] = {**dict(zip(self.moments, new[1:], strict=False)), **counts}
        with as_compiled(), torch.no_grad():
            rule.step()
        state, moved = rule.state[parameter], parameter.detach()
        return [
            flat[0] + lr * moved if self.rule in RATE_TIMES_DIRECTION else moved,
            *(state[key] for key in self.moments),
            *(state[key].expand(len(self.parameters)) for key in self.counts),
        ]


class FlatUpdate:
    """The update rule of a recorded step, an :class:`~pyro_vae.training.step.Update`.

    Args:
        groups: the groups of a FlatOptimizer
        tensors: tensors in place of its :meth:`~FlatOptimizer.tensors`
    """

    def __init__(self, groups: Sequence[Group], tensors: Sequence[Tensor]) -> None:
        rest = iter(tensors)
        self.groups, self.lrs = groups, [next(rest) for _ in groups]
        self.flats = [[next(rest) for _ in group.flat] for group in groups]
        pieces = (group.layout.split(flat[0]) for group, flat in zip(groups, self.flats, strict=True))
        self.parameters = [piece.detach().requires_grad_() for group in pieces for piece in group]

    def backward(self, loss: Tensor, gradient: Tensor) -> None:
        """Backpropagate to the parameters alone."""
        loss.backward(gradient, inputs=self.parameters)
        if any(p.grad is None for p in self.parameters):
            raise Unsupported("a parameter had a gradient in the first step and has none in the recorded one")

    def apply(self, gradients: list[Tensor], factor: Tensor | None, good: Tensor) -> None:
        """Copy the updated values into the flat tensors where ``good`` is True."""
        rest = iter(gradients)
        for group, flat, lr in zip(self.groups, self.flats, self.lrs, strict=True):
            gradient = group.layout.join([next(rest) for _ in group.parameters])
            gradient = gradient if factor is None else gradient * factor
            for old, new in zip(flat, group.updated(flat, lr, gradient), strict=True):
                old.copy_(torch.where(good, new, old))


@contextmanager
def as_compiled() -> Iterator[None]:
    """Keep torch's optimizers from reading numbers, as while torch compiles them."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before
