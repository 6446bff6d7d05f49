"""Recurrent encoders of sequences."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.nets.contract import Net
from pyro_vae.nets.mlp import FlatLayers, TrunkAndHead
from pyro_vae.nets.shapes import Shape, as_shape, sequence_shape

__all__ = ["RecurrentEncoder"]


class RecurrentEncoder(Net):
    r"""A gated recurrent unit over a sequence ``(steps, ...)``, in both directions.

    A linear layer maps the last states of both directions to the output.

    Args:
        in_shape: shape of one sequence, steps first
        out_shape: shape of one output
        context: width of the context, which is concatenated to the last states
        hidden: width of the state of each direction
        layers: number of recurrent layers

    References:
        Learning phrase representations using RNN encoder-decoder (Cho et al., 2014), https://arxiv.org/abs/1406.1078

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``in_shape`` is not the shape of a sequence, or ``hidden`` or ``layers`` is below 1.

    Example:
        >>> RecurrentEncoder((50, 3), (2, 8))(torch.zeros(5, 50, 3)).shape
        torch.Size([5, 2, 8])
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, *, context: int = 0, hidden: int = 128, layers: int = 1
    ) -> None:
        hidden, layers = check_int("hidden", hidden), check_int("layers", layers)
        _, width = sequence_shape("in_shape", in_shape)
        head = FlatLayers(nn.Linear(2 * hidden + context, math.prod(as_shape(out_shape))))
        super().__init__(TrunkAndHead(LastStates(width, hidden, layers), head), in_shape, out_shape, context=context)


class LastStates(nn.Module):
    """The last state of a recurrent network in each direction."""

    def __init__(self, width: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, hidden, layers, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the states, ``(n, 2 * hidden)``."""
        _, states = self.gru(x.reshape(*x.shape[:2], -1))
        return torch.cat([states[-2], states[-1]], -1)
