"""A guide whose encoders are replaced by numbers of each datum's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae._util.random_state import fork_rng
from pyro_vae.conditional import Conditional
from pyro_vae.programs.program import Program
from pyro_vae.trace import Call, Recorder

__all__ = ["Local"]


class Constant(nn.Module):
    """What stands in for an encoder: the numbers that it made, as parameters."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.detach().clone())

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the numbers, whatever the input."""
        return self.value


class Local(Program):
    """The same model, with a guide that has free numbers for each datum where encoders made them.

    Whatever the family of the posterior, its parameters are those that the encoder would make for this batch: they
    start there, and an optimizer finds the best ones. What the posterior learns beside its encoder (the weights of an
    autoregressive flow) stays.

    Args:
        program: is left as it is
        batch: x and context

    Raises:
        ValueError: the guide has no encoder ``net``, or one that sees draws of other latents, so that no fixed numbers
            can take its place.
    """

    def __init__(self, program: Program, batch: tuple[Tensor, ...]) -> None:
        super().__init__()
        # in a tuple they are no submodules: nothing of them is optimized
        self._whole = (program, batch)
        outputs = [self.outputs(seed) for seed in range(2)]
        self.owners = list(outputs[0])
        if not self.owners:
            raise ValueError(
                f"program: the guide of {type(program).__name__} has no posterior with an encoder in an "
                "attribute `net`"
            )
        for owner in self.owners:
            if not torch.equal(outputs[0][owner], outputs[1][owner]):
                raise ValueError(
                    f"program: the encoder of {type(owner).__name__} sees draws of other latents, so that no fixed "
                    "numbers of a datum can take its place: local optimisation works where all encoders see x alone"
                )
        self.constants = nn.ModuleList(Constant(outputs[0][owner]) for owner in self.owners)

    def outputs(self, seed: int) -> dict[nn.Module, Tensor]:
        """Return what each encoder makes in a run of the guide with this noise."""
        program, batch = self._whole
        found: dict[nn.Module, Tensor] = {}

        def keep(owner: nn.Module, module: nn.Module, inputs: Any, output: Tensor) -> None:
            found[owner] = output

        owners = [
            m
            for m in program.modules()
            if isinstance(m, Conditional) and isinstance(getattr(m, "net", None), nn.Module)
        ]
        handles = [owner.net.register_forward_hook(partial(keep, owner)) for owner in owners]
        try:
            with fork_rng(batch, seed), torch.no_grad():
                Call(program.model, program.guide, batch, {}).trace(program.guide, Recorder())
        finally:
            for handle in handles:
                handle.remove()
        return found

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Put the numbers in the place of the encoders."""
        nets = [owner.net for owner in self.owners]
        for owner, constant in zip(self.owners, self.constants, strict=True):
            owner.net = constant
        try:
            yield
        finally:
            for owner, net in zip(self.owners, nets, strict=True):
                owner.net = net

    def model(self, x: Tensor, *context: Tensor) -> Any:
        """Run the model of the program."""
        return self._whole[0].model(x, *context)

    def guide(self, x: Tensor, *context: Tensor) -> Any:
        """Run the guide of the program at the numbers of each datum."""
        with self.replaced():
            return self._whole[0].guide(x, *context)

    def optimize(self, bound: Callable[[Program], Tensor], steps: int, rate: float, tick: Callable[[], Any]) -> None:
        """Raise a bound of each datum by Adam, at a rate that falls to zero along a cosine."""
        numbers = list(self.parameters())
        adam = torch.optim.Adam(numbers, lr=rate)
        with torch.enable_grad():
            for step in range(steps):
                adam.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
                loss = -bound(self).sum()
                for number, slope in zip(numbers, torch.autograd.grad(loss, numbers), strict=True):
                    number.grad = slope
                adam.step()
                tick()
