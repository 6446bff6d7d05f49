"""A summary of the rest of a sequence at each of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pyro_vae._util.describe import Described
from pyro_vae.nets import MLP, NetBuilder, build

__all__ = ["BackwardGRU"]


class BackwardGRU(Described, nn.Module):
    r"""A GRU that reads sequences backwards: :math:`h_t` is computed from :math:`x_t, \ldots, x_L`.

    Given :math:`z_{t-1}`, the posterior of :math:`z_t` depends only on the data (and inputs) from t on, so that a
    forward pass would add nothing. Each row starts at its own last step; the padding is ignored.

    Args:
        shape: shape of one step of x
        features: number of features of h
        context: number of inputs of each step
        net: builds the network that each step passes first, ``net(shape, (features,))``; linear by default. With
            ``nets.ZeroImputed`` it sees which entries are missing, and with
            ``functools.partial(data.tables.Features, columns, missing=True)`` standardized values as well

    Shape:
        x of ``(n, T, *shape)``, lengths of ``(n,)`` and, unless ``context`` is 0, inputs of ``(n, T, context)`` to
        ``(n, T, features)``.

    Example:
        >>> import torch
        >>> BackwardGRU((4,), 16)(torch.zeros(5, 9, 4), torch.full((5,), 9)).shape
        torch.Size([5, 9, 16])
    """

    def __init__(
        self,
        shape: Sequence[int],
        features: int,
        *,
        context: int = 0,
        net: NetBuilder | None = None,
    ) -> None:
        super().__init__()
        self.net = build(net or partial(MLP, hidden=()), shape, (features,), context)
        self.gru = nn.GRU(features, features, batch_first=True)

    @property
    def takes_missing(self) -> bool:
        """Whether NaN may mark missing entries of x."""
        return self.net.takes_missing

    def forward(self, x: Tensor, lengths: Tensor, *inputs: Tensor) -> Tensor:
        """Return h for each step."""
        if sum(u.shape[-1] for u in inputs) != self.net.context:
            raise ValueError(
                f"context: expected {sum(u.shape[-1] for u in inputs)} in BackwardGRU, the number of inputs of each "
                f"step, got {self.net.context}. Build it with context=inputs"
            )
        steps = torch.arange(x.shape[1], device=x.device)
        # reverses the steps of a sequence, and separately its padding: this permutation is its own inverse
        order = ((lengths.long().unsqueeze(-1) - 1 - steps) % x.shape[1]).unsqueeze(-1)
        reversed_steps = torch.take_along_dim(self.net(x, *inputs), order, 1)
        return torch.take_along_dim(self.gru(reversed_steps)[0], order, 1)
