"""Convolutions that see the entries of a grid before the current one, for autoregressive distributions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, silu

from pyro_vae._util.validation import check_int

__all__ = ["GatedConvolutions"]


class GatedConvolutions(nn.Module):
    """Gated masked convolutions: what they return at a position depends on the positions before it, row by row.

    As in the first PixelCNN, the stacked layers have a blind spot above to the right.

    References:
        Conditional image generation with PixelCNN decoders (van den Oord et al., 2016),
        https://arxiv.org/abs/1606.05328

    Args:
        in_channels: number of input channels
        out_channels: number of output channels
        groups: number of entries at one position, each of which depends on those before it; the channels of input and
            output are in as many equal groups
        features: number of features of the condition, and of each layer per group
        layers: number of gated layers after the first convolution
        kernel_size: width of the convolutions, odd

    Shape:
        inputs ``(n, in_channels, height, width)`` and conditions ``(n, features, height, width)`` to
        ``(n, out_channels, height, width)``.

    Raises:
        ValueError: ``features`` is below 1, ``layers`` below 0, or ``kernel_size`` is even.

    Example:
        >>> GatedConvolutions(2, 6, groups=1, features=4)(torch.zeros(5, 2, 3, 3), torch.zeros(5, 4, 3, 3)).shape
        torch.Size([5, 6, 3, 3])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        features: int = 16,
        layers: int = 3,
        kernel_size: int = 5,
    ) -> None:
        super().__init__()
        channels, layers = groups * check_int("features", features), check_int("layers", layers, 0)
        if check_int("kernel_size", kernel_size) % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {kernel_size}")
        self.first = MaskedConv(in_channels, channels, kernel_size, groups=groups, own=False)
        self.first_condition = nn.Conv2d(features, channels, 1)
        self.layers = nn.ModuleList(GatedLayer(channels, features, kernel_size, groups) for _ in range(layers))
        self.last = MaskedConv(channels, out_channels, 1, groups=groups, own=True)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the outputs for inputs ``x`` under conditions ``h``."""
        y = self.first(x) + self.first_condition(h)
        for layer in self.layers:
            y = layer(y, h)
        return self.last(silu(y))


class MaskedConv(nn.Conv2d):
    """A convolution over the pixels before the current one, and over the channels before the current one in it.

    Args:
        in_channels: number of input channels, in equal groups, in the order of sampling
        out_channels: number of output channels, in as many groups
        kernel_size: width
        groups: number of groups, such as the channels of the image
        own: whether a group sees itself at the current pixel
    """

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, groups: int, own: bool) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        to = torch.arange(out_channels).unsqueeze(1) * groups // out_channels
        source = torch.arange(in_channels) * groups // in_channels
        mask = torch.zeros_like(self.weight)
        middle = kernel_size // 2
        mask[:, :, :middle] = 1
        mask[:, :, middle, :middle] = 1
        mask[:, :, middle, middle] = (to >= source if own else to > source).float()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the masked weights."""
        return conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class GatedLayer(nn.Module):
    """A gated masked convolution with a residual connection."""

    def __init__(self, channels: int, condition: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        self.value = MaskedConv(channels, channels, kernel_size, groups=groups, own=True)
        self.gate = MaskedConv(channels, channels, kernel_size, groups=groups, own=True)
        self.condition = nn.Conv2d(condition, 2 * channels, 1)
        self.out = MaskedConv(channels, channels, 1, groups=groups, own=True)

    def forward(self, y: Tensor, h: Tensor) -> Tensor:
        """Map features ``(n, channels, height, width)`` to the same shape."""
        value, gate = self.condition(h).chunk(2, 1)
        return y + self.out(torch.tanh(self.value(y) + value) * torch.sigmoid(self.gate(y) + gate))
