"""Networks over data with missing entries: NaN where an entry was not observed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.nets.mlp import MLP

__all__ = ["SetEncoder", "ZeroImputed"]


class ZeroImputed(Net):
    r"""A network that sees 0 for each missing entry, and beside x which entries were observed.

    Args:
        in_shape: shape of one datum, NaN where an entry is missing
        out_shape: shape of one output
        context: how many further numbers (labels, covariates) one datum brings
        net: makes the network inside, ``net((2, *in_shape), out_shape)``: values, then 1 where observed and 0 where
            not (further channels for a convolution)

    References:
        MIWAE: deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Example:
        >>> ZeroImputed((3,), (2,))(torch.tensor([[1.0, float("nan"), 2.0]])).shape
        torch.Size([1, 2])
    """

    #: Whether missing entries arrive as NaN.
    takes_missing: ClassVar[bool] = True

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        context: int = 0,
        net: Callable[..., Net | nn.Module] = MLP,
    ) -> None:
        in_shape = as_shape(in_shape)
        super().__init__(_Masked(build(net, (2, *in_shape), out_shape, context)), in_shape, out_shape, context=context)


class SetEncoder(Net):
    r"""A network that reads the observed entries of a datum as a set, whatever their number.

    .. math:: \mathrm{net}\left(\sum_{i \text{ observed}} g(e_i, x_i, x_i e_i)\right)

    Each entry has a learned embedding :math:`e_i`. What is missing takes no part at all, and nothing stands in for it.

    Args:
        in_shape: shape of one datum, NaN where an entry is missing
        out_shape: shape of one output
        context: how many further numbers (labels, covariates) one datum brings
        embedding: length of the embedding of an entry
        features: length of the sum
        hidden: width of each hidden layer, before the sum and after it
        activation: class or function that makes the nonlinearity after each hidden layer

    References:
        EDDI: efficient dynamic discovery of high-value information with partial VAE (Ma et al., 2019),
        https://arxiv.org/abs/1809.11142

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Example:
        >>> SetEncoder((3,), (2,))(torch.tensor([[1.0, float("nan"), 2.0]])).shape
        torch.Size([1, 2])
    """

    #: Whether missing entries arrive as NaN.
    takes_missing: ClassVar[bool] = True

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        context: int = 0,
        embedding: int = 16,
        features: int = 128,
        hidden: Sequence[int] = (128,),
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        size = math.prod(as_shape(in_shape))
        each = MLP((2 * embedding + 1,), (features,), hidden=hidden, activation=activation)
        rest = MLP((features,), out_shape, context=context, hidden=hidden, activation=activation)
        super().__init__(_Set(size, embedding, each, rest), in_shape, out_shape, context=context)


class _Masked(nn.Module):
    """Zeros for NaN, with the mask."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        seen = ~torch.isnan(x)
        return self.net(torch.stack([torch.where(seen, x, 0.0), seen.to(x.dtype)], 1), *context)


class _Set(nn.Module):
    """The sum over observed entries."""

    def __init__(self, size: int, embedding: int, each: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.entries = nn.Parameter(torch.randn(size, embedding))
        self.each, self.rest = each, rest

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], -1, 1)
        seen = ~torch.isnan(x)
        # where before the network, not after it: NaN times 0 is NaN, in the gradient as well
        x = torch.where(seen, x, 0.0)
        entries = self.entries.expand(x.shape[0], -1, -1)
        terms = self.each(torch.cat([entries, x, x * entries], -1))
        return self.rest(torch.where(seen, terms, 0.0).sum(1), *context)
