"""Base of posteriors on the unit sphere, with a mean direction and a concentration from the encoder.

A subclass sets ``family``, its distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.sphere import direction
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.scales import positive

__all__ = ["Spherical"]


class Spherical(Conditional):
    """A distribution on the sphere: ``family(direction, concentration)``.

    Args:
        shape: shape of one example
        latent: number of coordinates, at least 2
        net: builds the encoder, ``net(shape, (latent + 1,))``
        context: width of the context in addition to x
    """

    family: ClassVar[Callable[[Tensor, Tensor], TorchDistributionMixin]]

    def __init__(self, shape: Sequence[int], latent: int, *, net: NetBuilder = MLP, context: int = 0) -> None:
        super().__init__(latent=latent, context=context, min_latent=2)
        self.net = build(net, shape, (latent + 1,), context)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> Spherical:
        """Build a small instance, with at least two coordinates."""
        return super().example(latent=max(latent, 2), shape=shape, **options)

    def forward(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return q(z given x)."""
        raw = self.net(x, *context)
        return self.family(direction(raw[..., 1:]), positive(raw[..., 0]))
