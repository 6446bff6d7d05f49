"""Networks that read the observed entries as a set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.nets.contract import Net
from pyro_vae.nets.mlp import MLP
from pyro_vae.nets.shapes import Shape, as_shape

__all__ = ["SetEncoder"]


class SetEncoder(Net):
    r"""A network that reads the observed entries of an example as a set of any size.

    .. math:: \mathrm{net}\left(\sum_{i \text{ observed}} g(e_i, x_i, x_i e_i)\right)

    Each entry has a learned embedding :math:`e_i`. Missing entries are left out; nothing is imputed for them.

    Args:
        in_shape: shape of one example, with NaN for missing entries
        out_shape: shape of one output
        context: width of the context (labels, covariates)
        embedding: length of the embedding of an entry
        features: length of the sum
        hidden: width of each hidden layer, before the sum and after it
        activation: builds the nonlinearity after each hidden layer

    References:
        EDDI: efficient dynamic discovery of high-value information with partial VAE (Ma et al., 2019),
        https://arxiv.org/abs/1809.11142

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Example:
        >>> SetEncoder((3,), (2,))(torch.tensor([[1.0, float("nan"), 2.0]])).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        context: int = 0,
        embedding: int = 16,
        features: int = 128,
        hidden: Sequence[int] = (128,),
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        embedding, features = check_int("embedding", embedding), check_int("features", features)
        size = math.prod(as_shape(in_shape))
        each = MLP((2 * embedding + 1,), (features,), hidden=hidden, activation=activation)
        rest = MLP((features,), out_shape, context=context, hidden=hidden, activation=activation)
        super().__init__(SumOverObserved(size, embedding, each, rest), in_shape, out_shape, context=context)


class SumOverObserved(nn.Module):
    """A network over the sum of the features of the observed entries."""

    takes_missing = True

    def __init__(self, size: int, embedding: int, each: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.entries = nn.Parameter(torch.randn(size, embedding))
        self.each, self.rest = each, rest

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the output of the network."""
        x = x.reshape(x.shape[0], -1, 1)
        observed = ~torch.isnan(x)
        # before the network, not only after it: NaN times 0 is NaN, in the gradient as well
        x = torch.where(observed, x, 0.0)
        entries = self.entries.expand(x.shape[0], -1, -1)
        terms = self.each(torch.cat([entries, x, x * entries], -1))
        return self.rest(torch.where(observed, terms, 0.0).sum(1), *context)
