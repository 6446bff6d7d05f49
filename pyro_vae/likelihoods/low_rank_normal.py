"""The normal likelihood with correlated entries."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import LowRankNormal as Family
from pyro_vae.nets import MLP, NetBuilder, Shape
from pyro_vae.nets.contract import build
from pyro_vae.nets.shapes import as_shape
from pyro_vae.scales import Scale, as_scale

__all__ = ["LowRankNormal"]


class LowRankNormal(Conditional):
    r"""A normal with low-rank plus diagonal covariance, with mean and factors from the decoder.

    .. math:: p(x \mid z) = \mathcal N(\operatorname{vec} x; \mu, W W^\top + \operatorname{diag} \sigma^2), \qquad
              (\mu, W) = \mathrm{net}(z)

    References:
        Stochastic segmentation networks (Monteiro et al., 2020), https://arxiv.org/abs/2006.06015

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (1 + rank, *shape))``, or ``(2 + rank, *shape)`` with ``PerExample``
            scales
        context: width of the context in addition to z
        rank: number of factors, the columns of W
        scale: std :math:`\sigma` in the units of the data: a number (fixed) or an object of ``pyro_vae.scales``
            (``Fixed``, ``Shared`` for one learned number, ``PerExample`` for an output of the network)

    Raises:
        ValueError: ``rank`` is below 1.

    Example:
        >>> import torch
        >>> LowRankNormal(3, (28, 28), rank=2)(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    def __init__(
        self,
        latent: int,
        shape: Shape,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        rank: int = 1,
        scale: Scale | float = 1.0,
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("rank", rank)
        self.shape, self.rank, self.scale = as_shape(shape), rank, as_scale(scale)
        self.net = build(net, (latent,), (1 + rank + self.scale.outputs, *self.shape), context)

    def forward(self, z: Tensor, *context: Tensor) -> Family:
        """Return p(x given z)."""
        k = len(self.shape)
        loc, factor, raw = self.net(z, *context).split([1, self.rank, self.scale.outputs], -1 - k)
        loc = loc.squeeze(-1 - k)
        scale = self.scale(*raw.unbind(-1 - k))
        # small factors at first, so that training starts with nearly independent entries
        return Family(loc, factor / math.sqrt(math.prod(self.shape) * self.rank), scale, k)
