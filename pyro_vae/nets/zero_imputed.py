"""Networks that read 0 for missing entries, and the mask of observed entries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.nets.contract import Net, NetBuilder, build
from pyro_vae.nets.mlp import MLP
from pyro_vae.nets.shapes import Shape, as_shape

__all__ = ["ZeroImputed"]


class ZeroImputed(Net):
    r"""A network whose input is x with 0 for missing entries, stacked with the mask of observed entries.

    Args:
        in_shape: shape of one example, with NaN for missing entries
        out_shape: shape of one output
        context: width of the context (labels, covariates)
        net: builds the network inside, ``net((2, *in_shape), out_shape)``; its input holds the values, then 1 for
            observed and 0 for missing entries (additional channels for a convolution)

    References:
        MIWAE: deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Example:
        >>> ZeroImputed((3,), (2,))(torch.tensor([[1.0, float("nan"), 2.0]])).shape
        torch.Size([1, 2])
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, context: int = 0, net: NetBuilder = MLP) -> None:
        in_shape = as_shape(in_shape)
        body = ValuesAndMask(build(net, (2, *in_shape), out_shape, context))
        super().__init__(body, in_shape, out_shape, context=context)


class ValuesAndMask(nn.Module):
    """Call a network with zeros for NaN, stacked with the mask."""

    takes_missing = True

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the output of the network."""
        observed = ~torch.isnan(x)
        return self.net(torch.stack([torch.where(observed, x, 0.0), observed.to(x.dtype)], 1), *context)
