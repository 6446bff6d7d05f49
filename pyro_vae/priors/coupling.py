"""Base of coupling layers: one half of the latents determines how the other half is mapped.

A subclass calls the constructor with the number of network outputs per mapped latent and defines ``transform``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae.distributions.flow import Layer
from pyro_vae.nets import NetBuilder, build

__all__ = ["Coupling"]


class Coupling(Layer):
    """Keep the first half, map the second half given the first, and reverse the order.

    Args:
        latent: number of latents, at least 2
        net: builds the network, ``net((latent // 2,), out_shape)``
        context: width of the context
        before: dimensions of ``out_shape`` before the number of mapped latents
        after: dimensions of ``out_shape`` after it
    """

    def __init__(
        self, latent: int, net: NetBuilder, context: int, *, before: Sequence[int] = (), after: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.sizes = (latent // 2, latent - latent // 2)
        self.net = build(net, (self.sizes[0],), (*before, self.sizes[1], *after), context)

    @abstractmethod
    def transform(self, mapped: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return the image of the second half and the log-slope of each entry, given the outputs of the network."""

    def halves(self, z: Tensor, context: Sequence[Tensor], inverse: bool) -> tuple[Tensor, Tensor]:
        """Return both halves with the second mapped, and the log-determinant."""
        kept, mapped = z.split(self.sizes, -1)
        mapped, log_slope = self.transform(mapped, self.net(kept, *context), inverse)
        # a context may have added batch dimensions to the second half
        return torch.cat([kept.expand(*mapped.shape[:-1], -1), mapped], -1), log_slope.sum(-1)

    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and the log-determinant."""
        u, log_det = self.halves(z, context, inverse=False)
        return u.flip(-1), log_det

    def inverse(self, u: Tensor, *context: Tensor) -> Tensor:
        """Return z."""
        return self.halves(u.flip(-1), context, inverse=True)[0]
