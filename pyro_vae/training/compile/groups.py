"""The optimizer of a recorded step: torch's own rules, on parameters that are laid out in one flat tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.training.compile.flat import Flat

__all__ = ["ELEMENTWISE", "Group", "Unsupported", "bundles"]

#: Update rules that treat each number by itself, so that all parameters can be one flat tensor.
ELEMENTWISE = (
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.SGD,
)

#: Rules that would read a learning rate that is a tensor. Their step is the rate times a direction without it.
READERS = (torch.optim.RMSprop, torch.optim.SGD)

#: What these rules keep once for a parameter; everything else they keep for each number.
COUNTS = ("step", "mu_product")

#: Numbers above which it costs more to copy a gradient beside the others than to update its parameter on its own.
LARGE = 2**15


class Unsupported(RuntimeError):
    """Why a step cannot be compiled."""


def bundles(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return which parameters are updated together: each large one alone, all small ones at once."""
    large = [[p] for p in parameters if p.numel() > LARGE]
    small = [p for p in parameters if p.numel() <= LARGE]
    return [*large, small] if small else large


class Group:
    """Parameters of one group of the optimizer, they and their state laid out in flat tensors.

    Parameters and state stay the tensors that they were, now as views: what reads or writes them from outside sees
    and moves the same numbers.

    Args:
        optimizer: which holds the state
        group: one of its groups
        parameters: some of the group that get a gradient, at least one
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, group: dict[str, Any], parameters: Sequence[nn.Parameter]
    ) -> None:
        self.rule, self.options, self.parameters = type(optimizer), group, parameters
        self.layout = Flat(self.parameters)
        states = [optimizer.state[p] for p in self.parameters]
        tensors = [key for key, value in states[0].items() if isinstance(value, Tensor)]
        self.moments = [key for key in tensors if key not in COUNTS]
        self.counts = [key for key in tensors if key in COUNTS]
        self.frozen = self.settings()
        self.lr = torch.as_tensor(group["lr"]).to(parameters[0])
        self.rate = group["lr"]
        with torch.no_grad():
            self.flat = [self.layout.join([p.detach() for p in self.parameters])]
            for p, view in zip(self.parameters, self.layout.split(self.flat[0]), strict=True):
                p.data = view
            for key in self.moments:
                self.flat.append(self.layout.join([state[key] for state in states]))
                for state, view in zip(states, self.layout.split(self.flat[-1]), strict=True):
                    state[key] = view
            for key in self.counts:
                values = torch.stack([state[key] for state in states])
                if not alike(values):
                    raise Unsupported(f"the parameters were updated unequally often ({key})")
                self.flat.append(values)
                for state, view in zip(states, values.unbind(), strict=True):
                    state[key] = view

    def settings(self) -> dict[str, Any]:
        """Return what the graph holds as constants."""
        return {key: value for key, value in self.options.items() if key not in ("params", "lr")}

    def look(self) -> None:
        """Take over the present learning rate."""
        if self.options["lr"] is not self.rate:
            self.rate = self.options["lr"]
            self.lr.fill_(self.rate)

    def update(self, flat: Sequence[Tensor], lr: Tensor, gradient: Tensor) -> list[Tensor]:
        """Return the flat tensors after a step by torch's own rule."""
        new = [t.clone() for t in flat]
        options = {**self.frozen, "lr": lr, "capturable": True, "foreach": False, "fused": False}
        parameter = new[0]
        if self.rule in READERS:
            # from zero at a rate of 1 the rule goes to the direction itself, once weight decay is in the gradient
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
            flat[0] + lr * moved if self.rule in READERS else moved,
            *(state[key] for key in self.moments),
            *(state[key].expand(len(self.parameters)) for key in self.counts),
        ]


def alike(values: Tensor) -> bool:
    """Whether all numbers are the same; this waits for the device, once for a graph."""
    return bool((values == values[0]).all())


@contextmanager
def as_compiled() -> Iterator[None]:
    """Have torch's optimizers keep to tensors, as they do while torch compiles them."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before
