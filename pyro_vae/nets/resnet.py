"""Residual networks for images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from pyro_vae._util.validation import check_int
from pyro_vae.nets.contract import Net
from pyro_vae.nets.conv import AsImage, halvings
from pyro_vae.nets.mlp import FlatLayers, TrunkAndHead
from pyro_vae.nets.shapes import Shape, as_shape, image_shape

__all__ = ["ResNetDecoder", "ResNetEncoder"]


class ResNetEncoder(Net):
    r"""A residual network over an image ``(height, width)`` or ``(channels, height, width)``.

    Each stage halves height and width (rounded up) by a convolution with stride 2, and adds residual blocks

    .. math:: h \leftarrow h + f(f(h)), \qquad f = \mathrm{conv} \circ \mathrm{SiLU} \circ \mathrm{norm}.

    The norm is a group norm, which does not depend on the other examples of a batch.

    Args:
        in_shape: shape of one image
        out_shape: shape of one output
        context: width of the context, which is concatenated to the features of the last stage
        channels: channels of each stage
        blocks: residual blocks of each stage

    References:
        Identity mappings in deep residual networks (He et al., 2016), https://arxiv.org/abs/1603.05027;
        Group normalization (Wu and He, 2018), https://arxiv.org/abs/1803.08494

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``in_shape`` is not the shape of an image, or ``channels`` or ``blocks`` is invalid.

    Example:
        >>> import torch
        >>> ResNetEncoder((3, 32, 32), (2, 20))(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 2, 20])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        context: int = 0,
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
    ) -> None:
        image, channels = image_shape("in_shape", in_shape), as_shape(channels, "channels")
        blocks = check_int("blocks", blocks, 0)
        layers: list[nn.Module] = [AsImage(image)]
        for i, o in zip((image[0], *channels), channels, strict=False):
            layers += [nn.Conv2d(i, o, 3, stride=2, padding=1), *(ResidualBlock(o) for _ in range(blocks))]
        features = channels[-1] if channels else image[0]
        layers += [*normalized(features), nn.Flatten()]
        size = features * math.prod(halvings(image[1:], len(channels))[-1])
        head = FlatLayers(nn.Linear(size + context, math.prod(as_shape(out_shape))))
        super().__init__(TrunkAndHead(nn.Sequential(*layers), head), in_shape, out_shape, context=context)


class ResNetDecoder(Net):
    r"""A residual network to an image ``(..., height, width)``: the mirror of :class:`ResNetEncoder`.

    Images are enlarged by repeating pixels and then convolved. A transposed convolution with a stride would cover
    some pixels more often than others, which shows as a checkerboard.

    All dimensions of ``out_shape`` before the last two are channels: a likelihood with two parameters per pixel
    requests ``(2, height, width)``.

    Args:
        in_shape: shape of one input
        out_shape: shape of the image
        context: width of the context, which is concatenated to the input
        channels: channels of each stage
        blocks: residual blocks of each stage

    References:
        Deconvolution and checkerboard artifacts (Odena et al., 2016), https://doi.org/10.23915/distill.00003

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``out_shape`` is not the shape of an image, or ``channels`` or ``blocks`` is invalid.

    Example:
        >>> import torch
        >>> ResNetDecoder((20,), (2, 3, 32, 32))(torch.zeros(5, 20)).shape
        torch.Size([5, 2, 3, 32, 32])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        context: int = 0,
        channels: Sequence[int] = (64, 32),
        blocks: int = 1,
    ) -> None:
        image, channels = image_shape("out_shape", out_shape), as_shape(channels, "channels")
        blocks = check_int("blocks", blocks, 0)
        sizes = halvings(image[1:], len(channels))[::-1]
        small = (channels[0] if channels else image[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Linear(math.prod(as_shape(in_shape)) + context, math.prod(small)),
            nn.Unflatten(1, small),
        ]
        for i, o, size in zip(channels, (*channels[1:], image[0]), sizes[1:], strict=False):
            layers += [*(ResidualBlock(i) for _ in range(blocks)), *normalized(i)]
            layers += [Enlarge(size), nn.Conv2d(i, o, 3, padding=1)]
        shape = as_shape(out_shape)
        if len(shape) > 3:  # several dimensions of channels
            layers.append(nn.Unflatten(1, shape[:-2]))
        super().__init__(FlatLayers(*layers), in_shape, shape, context=context)


class ResidualBlock(nn.Module):
    """Two convolutions whose output is added to the input; an identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(
            *normalized(channels), nn.Conv2d(channels, channels, 3, padding=1), *normalized(channels), last
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the input plus the output of the convolutions."""
        return x + self.layers(x)


class Enlarge(nn.Module):
    """Repeat pixels until an image has a size."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the larger images."""
        return functional.interpolate(x, self.size, mode="nearest")


def normalized(channels: int) -> list[nn.Module]:
    """Return a group norm and a nonlinearity; up to eight groups, of four channels or more if there are as many."""
    groups = next(n for n in (8, 4, 2, 1) if n == 1 or (channels % n == 0 and channels >= 4 * n))
    return [nn.GroupNorm(groups, channels), nn.SiLU()]
