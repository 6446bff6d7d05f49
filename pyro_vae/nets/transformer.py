"""Transformers over sequences."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.nets.contract import Net
from pyro_vae.nets.mlp import FlatLayers, TrunkAndHead
from pyro_vae.nets.shapes import Shape, as_shape, sequence_shape

__all__ = ["TransformerEncoder"]


class TransformerEncoder(Net):
    r"""Self-attention over the steps of a sequence, or over the elements of a set ``(elements, ...)``.

    A linear layer maps the mean of the features over the steps to the output. With ``positions=False`` the order of
    the elements does not matter.

    Args:
        in_shape: shape of one sequence, steps first
        out_shape: shape of one output
        context: width of the context, which is concatenated to the mean
        width: number of features of a step; a multiple of ``heads``
        heads: number of attention heads
        layers: number of layers
        positions: whether a learned embedding of its position is added to each step

    References:
        Attention is all you need (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762;
        Set Transformer (Lee et al., 2019), https://arxiv.org/abs/1810.00825

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``in_shape`` is not the shape of a sequence, ``width`` is not a multiple of ``heads``, or an
            integer argument is below 1.

    Example:
        >>> TransformerEncoder((50, 3), (2, 8))(torch.zeros(5, 50, 3)).shape
        torch.Size([5, 2, 8])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        context: int = 0,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        positions: bool = True,
    ) -> None:
        width, heads, layers = check_int("width", width), check_int("heads", heads), check_int("layers", layers)
        if width % heads:
            raise ValueError(f"width: expected a multiple of heads={heads}, got {width}. Change one of them")
        steps, features = sequence_shape("in_shape", in_shape)
        trunk = Attention(steps if positions else 0, features, width, heads, layers)
        head = FlatLayers(nn.Linear(width + context, math.prod(as_shape(out_shape))))
        super().__init__(TrunkAndHead(trunk, head), in_shape, out_shape, context=context)


class Attention(nn.Module):
    """Layers of self-attention, and the mean of their features over the steps."""

    def __init__(self, steps: int, features: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.positions = nn.Parameter(0.1 * torch.randn(steps, width)) if steps else None
        # without dropout, so that one run of the network gives one density
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, ``(n, width)``."""
        h = self.first(x.reshape(*x.shape[:2], -1))
        return self.layers(h if self.positions is None else h + self.positions).mean(1)
