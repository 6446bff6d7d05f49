"""Program: a model and a guide that stay plain Pyro, and what all programs share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor, nn

from pyro_vae.programs.parameters import announce, announcements_off

__all__ = [
    "DataPlate",
    "FunctionProgram",
    "Program",
    "announce",
    "announcements_off",
    "buffers_kept",
    "device_of",
    "evaluating",
    "mean_or_draw",
    "observe",
]


def device_of(program: nn.Module) -> torch.device:
    """Return where a program is, the CPU for one without parameters."""
    return next(program.parameters(), torch.zeros(())).device


class Program(nn.Module, ABC):
    """A Pyro model and guide in one ``nn.Module``: what estimators, ``fit`` and evaluation take.

    Both are called with one batch: ``model(x, *context)`` and ``guide(x, *context)``, and open the plate
    ``"data"`` at ``dim=-1`` with size ``len(x)``. They begin with :func:`announce`, so that stock
    ``pyro.infer.SVI`` finds the parameters without the global parameter store.

    Example:
        >>> import pyro, torch, pyro_vae as pv
        >>> class Coins(pv.Program):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.raw = torch.nn.Parameter(torch.zeros(()))
        ...     def model(self, x):
        ...         pv.programs.program.announce(coins=self)
        ...         with pyro.plate("data", len(x), dim=-1):
        ...             return pyro.sample("x", pyro.distributions.Bernoulli(logits=self.raw), obs=x)
        ...     def guide(self, x):
        ...         pass
        >>> len(pv.fit(Coins(), torch.ones(8), epochs=1, progress=False))
        1
    """

    @abstractmethod
    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Run the generative program on a batch ``x``, which it observes."""

    @abstractmethod
    def guide(self, x: Tensor, *context: Tensor) -> Any:
        """Run the amortized posterior on a batch ``x``."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters, in which data are expected."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Refuse a batch that the program cannot train on.

        Raises:
            ValueError: it names the argument, what was expected, what came and the first bad index.
        """


class FunctionProgram(Program):
    """A program made from a user's own two functions.

    References:
        Pyro: deep universal probabilistic programming (Bingham et al., 2019), https://arxiv.org/abs/1810.09538

    Args:
        model: ``model(x, *context)``, a Pyro model
        guide: ``guide(x, *context)``, a Pyro guide
        modules: by name, the ``nn.Module`` objects whose parameters the two functions use

    Example:
        >>> import pyro, torch, pyro_vae as pv
        >>> from pyro import distributions as dist
        >>> net = torch.nn.Linear(2, 1)
        >>> def model(x):
        ...     with pyro.plate("data", len(x), dim=-1):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(torch.stack([z, z], -1), 1.0).to_event(1), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x), dim=-1):
        ...         pyro.sample("z", dist.Normal(net(x).squeeze(-1), 1.0))
        >>> program = pv.programs.FunctionProgram(model, guide, net=net)
        >>> len(pv.fit(program, torch.zeros(8, 2), epochs=1, progress=False))
        1
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self._model, self._guide = model, guide
        self.parts = nn.ModuleDict(modules)

    def model(self, x: Tensor, *context: Tensor) -> Any:
        """Run the user's model."""
        announce(**self.parts)
        return self._model(x, *context)

    def guide(self, x: Tensor, *context: Tensor) -> Any:
        """Run the user's guide."""
        announce(**self.parts)
        return self._guide(x, *context)


def observe(name: str, fn: TorchDistributionMixin, x: Tensor) -> Tensor:
    """Observe ``x``, after a check that Pyro leaves out: that nothing is broadcast inside the event.

    Raises:
        ValueError: ``x`` is not exactly a batch of events of ``fn``.
    """
    # enumerated latents are the same for all data: one row, with their values on the left
    sizes = {x.shape[0], 1} if len(fn.batch_shape) > 1 else {x.shape[0]}
    if x.shape[1:] != fn.event_shape or (fn.batch_shape and fn.batch_shape[-1] not in sizes):
        raise ValueError(
            f"{name}: expected a batch of shape (n, {', '.join(map(str, fn.event_shape))}), one datum of the "
            f"likelihood each, got {tuple(x.shape)} (the likelihood has batch shape {tuple(fn.batch_shape)})"
        )
    return pyro.sample(name, fn, obs=x)


class DataPlate(pyro.plate):
    """The plate ``"data"`` over a batch, at ``dim=-1``.

    Args:
        x: the batch; its first dimension is the plate's size
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__("data", x.shape[0], dim=-1, device=x.device)

    def _process_message(self, msg: Any) -> None:
        # pyro.plate expands every distribution, also one that has the size already: two views and their nodes in
        # the backward pass for each parameter
        if getattr(msg["fn"], "batch_shape", None) == (self.size,):
            SubsampleMessenger._process_message(self, msg)
        else:
            super()._process_message(msg)


def mean_or_draw(fn: TorchDistributionMixin) -> Tensor:
    """Return the mean, or a draw of a distribution that has none in closed form (an autoregressive one, say)."""
    try:
        return fn.mean
    except NotImplementedError:
        return fn.sample()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run in evaluation mode and without gradients, then give every submodule its own mode back."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, mode in modes.items():
            m.training = mode


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Put back the buffers that a run in training mode moves (statistics of a BatchNorm): a look is no step."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
