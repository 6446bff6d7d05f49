"""A guide with free parameters for each example in place of encoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae.conditional import Conditional
from pyro_vae.programs.program import Program
from pyro_vae.trace import Call, Recorder

__all__ = ["LocalGuide"]


class Constant(nn.Module):
    """A network that returns the same values, whatever its input."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the values."""
        return self.value


class LocalGuide(Program):
    """The same model with a guide that has free parameters for each example in place of the encoders' outputs.

    The family of the posterior stays the same. The parameters start at the encoder's outputs for this batch. Other
    parts of the posterior, such as the weights of an autoregressive flow, stay fixed.

    Args:
        program: the program, which is not changed
        batch: x and context

    Raises:
        ValueError: the guide has no encoder ``net``, or one that takes samples of other latents as input.
    """

    def __init__(self, program: Program, batch: tuple[Tensor, ...]) -> None:
        super().__init__()
        # in a tuple they are not submodules, so their parameters are not optimized
        self._program = (program, batch)
        outputs = [self.outputs(seed) for seed in range(2)]
        self.owners = list(outputs[0])
        if not self.owners:
            raise ValueError(
                f"program: expected a posterior with an encoder in an attribute `net`, but the guide of "
                f"{type(program).__name__} has none"
            )
        for owner in self.owners:
            if not torch.equal(outputs[0][owner], outputs[1][owner]):
                raise ValueError(
                    f"program: expected encoders that take x alone, but that of {type(owner).__name__} takes samples "
                    "of other latents, so no constant can replace its output"
                )
        self.values = nn.ParameterList(outputs[0][owner].detach().clone() for owner in self.owners)

    def outputs(self, seed: int) -> dict[nn.Module, Tensor]:
        """Return the output of each encoder in a run of the guide with this seed."""
        program, batch = self._program
        found: dict[nn.Module, Tensor] = {}
        running: list[nn.Module] = []

        def enter(module: nn.Module, inputs: Any) -> None:
            running.append(module)

        def keep(owner: nn.Module, module: nn.Module, inputs: Any, output: Tensor) -> None:
            running.pop()
            if not running:  # the outermost network returns the parameters
                found[owner] = output

        owners = [
            m
            for m in program.modules()
            if isinstance(m, Conditional) and isinstance(getattr(m, "net", None), nn.Module)
        ]
        nets: list[Any] = [owner.net for owner in owners]
        handles = [net.register_forward_pre_hook(enter) for net in nets]
        handles += [net.register_forward_hook(partial(keep, owner)) for owner, net in zip(owners, nets, strict=True)]
        try:
            with fork_rng(batch, seed), torch.no_grad():
                Call(program.model, program.guide, batch, {}).trace(program.guide, Recorder())
        finally:
            for handle in handles:
                handle.remove()
        return found

    @contextmanager
    def replaced(self, copies: int) -> Iterator[None]:
        """Replace the encoders by the free parameters, for a batch that is repeated this number of times."""
        nets = [owner.net for owner in self.owners]
        for owner, value in zip(self.owners, self.values, strict=True):
            owner.net = Constant(value.repeat(copies, *[1] * (value.dim() - 1)) if copies > 1 else value)
        try:
            yield
        finally:
            for owner, net in zip(self.owners, nets, strict=True):
                owner.net = net

    def model(self, x: Tensor, *context: Tensor) -> Any:
        """Run the model of the program."""
        return self._program[0].model(x, *context)

    def guide(self, x: Tensor, *context: Tensor) -> Any:
        """Run the guide of the program with the parameters of each example, for the batch or several copies of it."""
        _, batch = self._program
        with self.replaced(len(x) // len(batch[0])):
            return self._program[0].guide(x, *context)

    def optimize(
        self, bound: Callable[[Program], Tensor], num_steps: int, learning_rate: float, *, progress: bool = False
    ) -> None:
        """Maximize a bound of each example, ``bound(self)``, by Adam with a learning rate that falls to zero."""
        parameters = list(self.parameters())
        adam = torch.optim.Adam(parameters, lr=learning_rate)
        steps = progress_bar(range(num_steps), desc="optimizing", unit="step", leave=False, progress=progress)
        with torch.enable_grad():
            for step in steps:
                adam.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / num_steps))
                loss = -bound(self).sum()
                for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter.grad = grad
                adam.step()
