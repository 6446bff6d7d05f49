"""An autoregressive decoder of masked convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, silu

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Autoregressive
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, Shape, as_shape, build

__all__ = ["PixelCNN"]


class PixelCNN(Conditional):
    r"""Pixels drawn one after the other, each given z and those before it, by gated masked convolutions.

    .. math:: p(x \mid z) = \prod_i p(x_i \mid x_1, \dots, x_{i - 1}, z), \qquad
              y \leftarrow y + W \bigl(\tanh(a + A h) \odot \operatorname{sigmoid}(b + B h)\bigr), \quad
              h = \mathrm{net}(z)

    with (a, b) a convolution of y that sees only pixels before the present one (row by row, and channel by channel
    within a pixel) and itself. As in the first PixelCNN, some pixels above to the right lie outside of what the
    stacked layers see. The density takes one pass, a draw one for each pixel and channel.

    A decoder that can explain x by itself leaves z unused: keep it small, or give the bound free bits.

    References:
        Conditional image generation with PixelCNN decoders (van den Oord et al., 2016),
        https://arxiv.org/abs/1606.05328; PixelVAE (Gulrajani et al., 2017), https://arxiv.org/abs/1611.05013

    Args:
        latent: number of latents
        shape: shape of one datum: ``(height, width)``, ``(channels, height, width)``, or ``(width,)`` for a row
        net: makes the network from z to the features h, ``net((latent,), (features, height, width))``
        context: how many numbers of context one datum brings beside z
        levels: number L of levels, from 2 on; data are exactly ``k / (levels - 1)`` (within 1e-4)
        features: number of features of h, and for each channel of x those of each layer
        layers: number of gated layers after the first convolution
        kernel: width of the convolutions, odd

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: fewer than 2 levels, or an even kernel.

    Example:
        >>> import torch
        >>> PixelCNN(3, (4, 4))(torch.zeros(5, 3)).sample().shape
        torch.Size([5, 4, 4])
    """

    hint = (
        "Round pixels to k / (levels - 1) first, for instance (x * 255).round() / 255 with levels=256, or draw bits "
        "for levels=2; for grey values of any size use ContinuousBernoulli or Normal."
    )

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        levels: int = 2,
        features: int = 16,
        layers: int = 3,
        kernel: int = 5,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        check_int("levels", levels, 2)
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd width, got {kernel}")
        self.levels, self.features = levels, features
        self.image = image_of(self.shape)
        c, height, width = self.image
        self.net = build(net, (latent,), (features, height, width), context)
        wide = c * features
        self.first = MaskedConv(c, wide, kernel, groups_of=c, own=False)
        self.first_condition = nn.Conv2d(features, wide, 1)
        self.layers = nn.ModuleList(GatedLayer(wide, features, kernel, c) for _ in range(layers))
        self.last = MaskedConv(wide, c * levels, 1, groups_of=c, own=True)
        pixels = range(height * width)
        self.order = [channel * len(pixels) + p for p in pixels for channel in range(c)]

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
        x, h = x.reshape(-1, *self.image), h.reshape(-1, *h.shape[-3:])
        y = self.first(2 * x - 1) + self.first_condition(h)
        for layer in self.layers:
            y = layer(y, h)
        out = self.last(silu(y))
        return out.unflatten(1, (self.image[0], self.levels)).movedim(2, -1).reshape(*batch, *self.shape, self.levels)


class MaskedConv(nn.Conv2d):
    """A convolution that sees only the pixels before the present one, and of that the channels before its own.

    Args:
        before: number of input channels, in ``groups_of`` equal groups, one for each channel of the image
        after: number of output channels, in as many groups
        kernel: width
        groups_of: number of channels of the image
        own: whether a group sees itself at the present pixel
    """

    def __init__(self, before: int, after: int, kernel: int, *, groups_of: int, own: bool) -> None:
        super().__init__(before, after, kernel, padding=kernel // 2)
        sees = torch.arange(after).unsqueeze(1) * groups_of // after, torch.arange(before) * groups_of // before
        mask = torch.zeros_like(self.weight)
        middle = kernel // 2
        mask[:, :, :middle] = 1
        mask[:, :, middle, :middle] = 1
        mask[:, :, middle, middle] = (sees[0] >= sees[1] if own else sees[0] > sees[1]).float()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the weights that the mask leaves."""
        return conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class GatedLayer(nn.Module):
    """A gated masked convolution beside a shortcut."""

    def __init__(self, wide: int, condition: int, kernel: int, channels: int) -> None:
        super().__init__()
        self.value = MaskedConv(wide, wide, kernel, groups_of=channels, own=True)
        self.gate = MaskedConv(wide, wide, kernel, groups_of=channels, own=True)
        self.condition = nn.Conv2d(condition, 2 * wide, 1)
        self.out = MaskedConv(wide, wide, 1, groups_of=channels, own=True)

    def forward(self, y: Tensor, h: Tensor) -> Tensor:
        """Map features ``(n, wide, height, width)`` to the same shape."""
        value, gate = self.condition(h).chunk(2, 1)
        return y + self.out(torch.tanh(self.value(y) + value) * torch.sigmoid(self.gate(y) + gate))


def image_of(shape: Shape) -> Shape:
    """Read a shape as ``(channels, height, width)``."""
    if len(shape) < 3:
        return (1,) * (3 - len(shape)) + shape
    return (math.prod(shape[:-2]), *shape[-2:])
