"""A model of which entries are observed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.data.tables import Column

__all__ = ["SelfMasking"]


class SelfMasking(Conditional):
    r"""A model of which entries are observed: a logistic regression of each entry on its own value.

    .. math:: p(s_i = 1 \mid x) = \operatorname{sigmoid}(w_i x_i + c_i)

    References:
        not-MIWAE: deep generative modelling with missing not at random data (Ipsen et al., 2021),
        https://arxiv.org/abs/2006.12871

    Args:
        shape: shape of one example
        columns: columns of a table, numbers only: the regression is then on their standardized values

    Raises:
        ValueError: a column has labels.

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> SelfMasking((4,))(torch.zeros(5, 4)).event_shape
        torch.Size([4])
    """

    def __init__(self, shape: Sequence[int], *, columns: Sequence[Column] = ()) -> None:
        super().__init__()
        self.columns = tuple(columns)
        labels = [c.name for c in self.columns if c.features(torch.zeros(1)).shape[-1] != 1]
        if labels:
            raise ValueError(f"columns: expected numbers, got the labels of {labels[0]!r}. Leave this column out")
        self.weight, self.bias = nn.Parameter(torch.zeros(*shape)), nn.Parameter(torch.zeros(*shape))

    def forward(self, x: Tensor) -> dist.Independent:
        """Return p(s given x)."""
        if self.columns:
            pairs = zip(self.columns, x.unbind(-1), strict=True)
            x = torch.cat([column.features(values) for column, values in pairs], -1)
        return dist.Bernoulli(logits=self.weight * x + self.bias).to_event(self.weight.dim())
