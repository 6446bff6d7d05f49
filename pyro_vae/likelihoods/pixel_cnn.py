"""The PixelCNN likelihood: an autoregressive decoder of masked convolutions."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Autoregressive
from pyro_vae.nets import MLP, NetBuilder, Shape
from pyro_vae.nets.contract import build
from pyro_vae.nets.masked_conv import GatedConvolutions
from pyro_vae.nets.shapes import as_shape

__all__ = ["PixelCNN"]


class PixelCNN(Conditional):
    r"""Autoregressive pixels with levels: each given z and all pixels before it, by gated masked convolutions.

    .. math:: p(x \mid z) = \prod_i p(x_i \mid x_1, \dots, x_{i - 1}, z), \qquad
              y \leftarrow y + W \bigl(\tanh(a + A h) \odot \operatorname{sigmoid}(b + B h)\bigr), \quad
              h = \mathrm{net}(z)

    (a, b) is a convolution of y that is masked to the current pixel and those before it (row by row, and channel by
    channel within a pixel). As in the first PixelCNN, the stacked layers have a blind spot above to the right. A
    density takes one pass, a sample one pass per pixel and channel.

    A decoder that can explain x without z ignores z: keep it small, or train with free bits.

    References:
        Conditional image generation with PixelCNN decoders (van den Oord et al., 2016),
        https://arxiv.org/abs/1606.05328; PixelVAE (Gulrajani et al., 2017), https://arxiv.org/abs/1611.05013

    Args:
        latent: number of latents
        shape: shape of one example: ``(height, width)``, ``(channels, height, width)``, or ``(width,)`` for a row
        net: builds the network from z to the features h, ``net((latent,), (features, height, width))``
        context: width of the context in addition to z
        levels: number L of levels, at least 2; data are exactly ``k / (levels - 1)`` (within 1e-4)
        features: number of features of h, and of each layer per channel of x
        layers: number of gated layers after the first convolution
        kernel_size: width of the convolutions, odd

    Raises:
        ValueError: ``levels`` is below 2, ``features`` below 1, ``layers`` below 0, or ``kernel_size`` is even.

    Example:
        >>> import torch
        >>> PixelCNN(3, (4, 4))(torch.zeros(5, 3)).sample().shape
        torch.Size([5, 4, 4])
    """

    hint = (
        "Round pixels to k / (levels - 1) first, for instance (x * 255).round() / 255 with levels=256, or sample "
        "binary values for levels=2. For continuous grey values use ContinuousBernoulli or Normal."
    )

    def __init__(
        self,
        latent: int,
        shape: Shape,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        levels: int = 2,
        features: int = 16,
        layers: int = 3,
        kernel_size: int = 5,
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("levels", levels, 2)
        check_int("features", features)
        self.shape, self.levels = as_shape(shape), levels
        self.image = image_of(self.shape)
        c, height, width = self.image
        self.net = build(net, (latent,), (features, height, width), context)
        self.convolutions = GatedConvolutions(
            c, c * levels, groups=c, features=features, layers=layers, kernel_size=kernel_size
        )
        pixels = range(height * width)
        self.order = [channel * len(pixels) + p for p in pixels for channel in range(c)]

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> PixelCNN:
        """Build a small instance, with two narrow layers."""
        return super().example(latent=latent, shape=shape, **{"features": 4, "layers": 2, **options})

    def forward(self, z: Tensor, *context: Tensor) -> Autoregressive:
        """Return p(x given z)."""
        h = self.net(z, *context)
        return Autoregressive(self.logits, h, self.shape, self.order, self.levels, condition_dim=3)

    def logits(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the logits of each entry given those before it.

        Args:
            x: of shape ``(*batch, *shape)``
            h: of shape ``(*batch, features, height, width)``

        Returns:
            A tensor of shape ``(*batch, *shape, levels)``.
        """
        batch = h.shape[:-3]
        out = self.convolutions(2 * x.reshape(-1, *self.image) - 1, h.reshape(-1, *h.shape[-3:]))
        return out.unflatten(1, (self.image[0], self.levels)).movedim(2, -1).reshape(*batch, *self.shape, self.levels)


def image_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape as ``(channels, height, width)``."""
    if len(shape) < 3:
        return (1,) * (3 - len(shape)) + shape
    return (math.prod(shape[:-2]), *shape[-2:])
