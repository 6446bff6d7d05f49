"""Convolutional encoders and decoders of signals, images and volumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.nets.contract import Net
from pyro_vae.nets.mlp import FlatLayers, TrunkAndHead
from pyro_vae.nets.shapes import Shape, as_shape, image_shape

__all__ = ["ConvDecoder", "ConvEncoder"]

#: Convolutions by their number of dimensions.
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class ConvEncoder(Net):
    r"""Strided convolutions over an image ``(height, width)`` or ``(channels, height, width)``, a signal or a volume.

    Each convolution halves height and width (rounded up) and is followed by the nonlinearity. A hidden layer and a
    linear layer make the output.

    Args:
        in_shape: shape of one image, signal or volume
        out_shape: shape of one output
        context: width of the context, which is concatenated to the features of the last convolution
        channels: channels of each convolution
        hidden: width of the layer before the output
        activation: builds the nonlinearity
        dims: number of dimensions of the convolutions: 1 for signals ``(channels, length)``, 2 for images, 3 for
            volumes ``(channels, depth, height, width)``

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``in_shape`` is not the shape of an image, or an integer argument is invalid.

    Example:
        >>> import torch
        >>> ConvEncoder((28, 28), (2, 20))(torch.zeros(5, 28, 28)).shape
        torch.Size([5, 2, 20])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        context: int = 0,
        channels: Sequence[int] = (32, 64),
        hidden: int = 256,
        activation: Callable[[], nn.Module] = nn.SiLU,
        dims: int = 2,
    ) -> None:
        dims, hidden, channels = (
            check_int("dims", dims, 1, 3),
            check_int("hidden", hidden),
            as_shape(channels, "channels"),
        )
        image = image_shape("in_shape", in_shape, dims)
        layers: list[nn.Module] = [AsImage(image)]
        for i, o in zip((image[0], *channels), channels, strict=False):
            layers += [CONVOLUTIONS[dims](i, o, 3, stride=2, padding=1), activation()]
        features = (channels[-1] if channels else image[0]) * math.prod(halvings(image[1:], len(channels))[-1])
        head = FlatLayers(
            nn.Linear(features + context, hidden), activation(), nn.Linear(hidden, math.prod(as_shape(out_shape)))
        )
        super().__init__(TrunkAndHead(nn.Sequential(*layers), head), in_shape, out_shape, context=context)


class ConvDecoder(Net):
    r"""Transposed convolutions to an image ``(..., height, width)``: the mirror of :class:`ConvEncoder`.

    All dimensions of ``out_shape`` before the last ``dims`` are channels: a likelihood with two parameters per pixel
    requests ``(2, height, width)``.

    Args:
        in_shape: shape of one input
        out_shape: shape of the image, signal or volume
        context: width of the context, which is concatenated to the input
        channels: channels before each transposed convolution
        hidden: width of the first layer
        activation: builds the nonlinearity
        dims: number of dimensions of the convolutions, see :class:`ConvEncoder`

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``out_shape`` is not the shape of an image, or an integer argument is invalid.

    Example:
        >>> import torch
        >>> ConvDecoder((20,), (2, 28, 28))(torch.zeros(5, 20)).shape
        torch.Size([5, 2, 28, 28])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        context: int = 0,
        channels: Sequence[int] = (64, 32),
        hidden: int = 256,
        activation: Callable[[], nn.Module] = nn.SiLU,
        dims: int = 2,
    ) -> None:
        dims, hidden, channels = (
            check_int("dims", dims, 1, 3),
            check_int("hidden", hidden),
            as_shape(channels, "channels"),
        )
        image = image_shape("out_shape", out_shape, dims)
        out_shape = as_shape(out_shape)
        sizes = halvings(image[1:], len(channels))[::-1]
        small = (channels[0] if channels else image[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Linear(math.prod(as_shape(in_shape)) + context, hidden),
            activation(),
            nn.Linear(hidden, math.prod(small)),
            nn.Unflatten(1, small),
        ]
        widths = [*channels, image[0]]
        for i, o, before, after in zip(widths[:-1], widths[1:], sizes[:-1], sizes[1:], strict=True):
            # a stride of 2 turns n into 2n - 1 rows: the output padding adds the row that an even size needs
            extra = tuple(m - 2 * n + 1 for n, m in zip(before, after, strict=True))
            layers += [activation(), TRANSPOSED[dims](i, o, 3, stride=2, padding=1, output_padding=extra)]
        if len(out_shape) > dims + 1:  # several dimensions of channels
            layers.append(nn.Unflatten(1, out_shape[:-dims]))
        super().__init__(FlatLayers(*layers), in_shape, out_shape, context=context)


def halvings(size: tuple[int, ...], times: int) -> list[tuple[int, ...]]:
    """Return ``size`` and the sizes after 1 to ``times`` halvings, rounded up."""
    sizes = [size]
    for _ in range(times):
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
    return sizes


class AsImage(nn.Module):
    """Reshape ``(n, *shape)`` to ``(n, channels, *size)``."""

    def __init__(self, image: Shape) -> None:
        super().__init__()
        self.image = image

    def forward(self, x: Tensor) -> Tensor:
        """Return the images."""
        return x.reshape(-1, *self.image)
