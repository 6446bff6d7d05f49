"""A program made of two functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pyro_vae.programs.primitives import announce
from pyro_vae.programs.program import Program
from pyro_vae.programs.vae import VAE

__all__ = ["FunctionProgram"]


class FunctionProgram(Program):
    """A program made of a user's own model and guide functions.

    References:
        Pyro: deep universal probabilistic programming (Bingham et al., 2019), https://arxiv.org/abs/1810.09538

    Args:
        model: ``model(x, *context)``, a Pyro model
        guide: ``guide(x, *context)``, a Pyro guide
        modules: the ``nn.Module`` objects with the parameters of the two functions, by name

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

    @classmethod
    def example(cls) -> FunctionProgram:
        """Build a program of the model and guide of a small VAE."""
        vae = VAE.example()
        return cls(vae.model, vae.guide, vae=vae)

    def model(self, x: Tensor, *context: Tensor) -> Any:
        """Run the user's model."""
        announce(**self.parts)
        return self._model(x, *context)

    def guide(self, x: Tensor, *context: Tensor) -> Any:
        """Run the user's guide."""
        announce(**self.parts)
        return self._guide(x, *context)
