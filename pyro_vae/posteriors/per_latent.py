"""Base of posteriors with the same number of encoder outputs per latent.

A subclass sets ``outputs`` and defines ``distribution``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, NetBuilder, build

__all__ = ["PerLatent"]


class PerLatent(Conditional):
    r"""A posterior whose encoder returns ``(outputs, latent)``, or ``(latent,)`` where ``outputs`` is None.

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder
        context: width of the context in addition to x
    """

    outputs: ClassVar[int | None]

    def __init__(self, shape: Sequence[int], latent: int, *, net: NetBuilder = MLP, context: int = 0) -> None:
        super().__init__(latent=latent, context=context)
        rows = () if self.outputs is None else (self.outputs,)
        self.net = build(net, shape, (*rows, latent), context)

    @abstractmethod
    def distribution(self, *outputs: Tensor) -> TorchDistributionMixin:
        """Return q(z given x), given one tensor ``(*batch, latent)`` per encoder output."""

    def forward(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return q(z given x)."""
        out = self.net(x, *context)
        return self.distribution(*([out] if self.outputs is None else out.unbind(-2)))
