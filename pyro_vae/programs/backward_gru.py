"""A recurrent network that reads sequences backwards."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["BackwardGRU"]


class BackwardGRU(nn.Module):
    r"""A GRU that reads sequences backwards: :math:`h_t` is computed from :math:`x_t, \ldots, x_L`.

    Given :math:`z_{t-1}`, the posterior of :math:`z_t` depends only on the data from t on, so that a forward pass
    would add nothing. Each row starts at its own last step; the padding is ignored.

    Args:
        shape: shape of one step of x
        features: number of features of h

    Shape:
        x of ``(n, T, *shape)`` and lengths of ``(n,)`` to ``(n, T, features)``.

    Example:
        >>> import torch
        >>> BackwardGRU((4,), 16)(torch.zeros(5, 9, 4), torch.full((5,), 9)).shape
        torch.Size([5, 9, 16])
    """

    def __init__(self, shape: Sequence[int], features: int) -> None:
        super().__init__()
        self.gru = nn.GRU(math.prod(shape), features, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return h for each step."""
        steps = torch.arange(x.shape[1], device=x.device)
        # reverses the steps of a sequence, and separately its padding: this permutation is its own inverse
        order = ((lengths.long().unsqueeze(-1) - 1 - steps) % x.shape[1]).unsqueeze(-1)
        reversed_x = torch.take_along_dim(x.reshape(*x.shape[:2], -1), order, 1)
        return torch.take_along_dim(self.gru(reversed_x)[0], order, 1)
