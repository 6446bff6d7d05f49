"""The encoder of bags of words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from pyro_vae.nets.contract import Net
from pyro_vae.nets.mlp import FlatLayers, hidden_layers
from pyro_vae.nets.shapes import Shape, as_shape

__all__ = ["BagEncoder"]


class BagEncoder(Net):
    r"""A multilayer perceptron over log-counts with batch normalization of its outputs.

    .. math:: \operatorname{normalize}(\mathrm{mlp}(\log(1 + x)))

    Without the normalization, training often gets stuck where the outputs are the same for all documents.

    Args:
        in_shape: shape of one bag of counts
        out_shape: shape of one output
        context: width of the context (labels, covariates), which is concatenated to the input
        hidden: width of each hidden layer
        dropout: dropout probability of the last hidden layer

    References:
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Example:
        >>> import torch
        >>> BagEncoder((2000,), (2, 50))(torch.ones(5, 2000)).shape
        torch.Size([5, 2, 50])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        context: int = 0,
        hidden: Sequence[int] = (100, 100),
        dropout: float = 0.2,
    ) -> None:
        hidden, size = as_shape(hidden, "hidden"), math.prod(as_shape(out_shape))
        widths = [math.prod(as_shape(in_shape)) + context, *hidden]
        layers = hidden_layers(widths, nn.Softplus)
        layers += [nn.Dropout(dropout), nn.Linear(widths[-1], size), nn.BatchNorm1d(size)]
        super().__init__(LogCounts(*layers), in_shape, out_shape, context=context)


class LogCounts(FlatLayers):
    """Layers over the logarithms of counts, concatenated with the context."""

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the output of the layers."""
        return super().forward(x.log1p(), *context)
