"""Networks that read the logarithms of counts."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.nets.contract import Net, NetBuilder, build
from pyro_vae.nets.mlp import MLP
from pyro_vae.nets.shapes import Shape

__all__ = ["LogCounts"]


class LogCounts(Net):
    r"""A network whose input is :math:`\log(1 + x)`, so that large counts do not hide small ones.

    Args:
        in_shape: shape of one example of counts
        out_shape: shape of one output
        context: width of the context (labels, covariates)
        net: builds the network inside, ``net(in_shape, out_shape)``

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Example:
        >>> import torch
        >>> LogCounts((3,), (2,))(torch.tensor([[0.0, 7.0, 1e6]])).shape
        torch.Size([1, 2])
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, context: int = 0, net: NetBuilder = MLP) -> None:
        super().__init__(build(net, in_shape, out_shape, context), in_shape, out_shape, context=context)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the output of the network."""
        return super().forward(x.log1p(), *context)
