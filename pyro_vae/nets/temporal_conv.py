"""Dilated convolutions over sequences."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.nets.contract import Net
from pyro_vae.nets.mlp import FlatLayers, TrunkAndHead
from pyro_vae.nets.shapes import Shape, as_shape, sequence_shape

__all__ = ["TemporalConvEncoder"]


class TemporalConvEncoder(Net):
    r"""Residual convolutions over a sequence ``(steps, ...)``, whose dilations double from layer to layer.

    .. math:: h_t \leftarrow h_t + \mathrm{SiLU}\left(\sum_{k=-1}^{1} W_k h_{t + k d}\right), \quad d = 1, 2, 4, \ldots

    A linear layer maps the mean and the maximum of the features over the steps to the output. All steps are computed
    at once, which is faster than a recurrent network.

    Args:
        in_shape: shape of one sequence, steps first
        out_shape: shape of one output
        context: width of the context, which is concatenated to mean and maximum
        channels: width of each layer
        layers: number of layers; a feature of the last one depends on ``2 ** (layers + 1) - 1`` steps

    References:
        An empirical evaluation of generic convolutional and recurrent networks for sequence modeling (Bai et al.,
        2018), https://arxiv.org/abs/1803.01271

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``in_shape`` is not the shape of a sequence, or ``channels`` or ``layers`` is below 1.

    Example:
        >>> TemporalConvEncoder((50, 3), (2, 8))(torch.zeros(5, 50, 3)).shape
        torch.Size([5, 2, 8])
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, *, context: int = 0, channels: int = 64, layers: int = 4
    ) -> None:
        channels, layers = check_int("channels", channels), check_int("layers", layers)
        _, width = sequence_shape("in_shape", in_shape)
        head = FlatLayers(nn.Linear(2 * channels + context, math.prod(as_shape(out_shape))))
        super().__init__(TrunkAndHead(Dilated(width, channels, layers), head), in_shape, out_shape, context=context)


class Dilated(nn.Module):
    """Dilated convolutions, and the mean and the maximum of their features over the steps."""

    def __init__(self, width: int, channels: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, channels, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=2**i, dilation=2**i) for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, ``(n, 2 * channels)``."""
        h = self.first(x.reshape(*x.shape[:2], -1).transpose(1, 2))
        for layer in self.layers:
            h = h + nn.functional.silu(layer(h))
        return torch.cat([h.mean(-1), h.amax(-1)], -1)
