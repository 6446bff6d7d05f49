"""An encoder network for tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_vae._util.describe import Described
from pyro_vae.data.tables.column import Column, grouped
from pyro_vae.nets import MLP, Net, build

__all__ = ["Features"]


class Features(Described, nn.Module):
    """An encoder network that sees each column as features of order one, and labels as one-hot vectors.

    Pass it to a posterior as ``net=functools.partial(Features, columns)``, and in a program with ``missing=True`` as
    ``functools.partial(Features, columns, missing=True)``.

    Args:
        columns: columns of the table
        in_shape: ``(number of columns,)``
        out_shape: shape of one output
        context: width of the context that is concatenated to the input
        net: makes the network that follows, ``net((width,), out_shape)``
        missing: whether entries may be NaN. Their features are 0, and the network also sees the mask of the observed
            entries

    Raises:
        ValueError: ``in_shape`` is not one number per column.

    Example:
        >>> from functools import partial
        >>> import pyro_vae as pv
        >>> from pyro_vae.data.tables import Categorical, Real
        >>> columns = [Real("age", 40.0, 12.0), Categorical("colour", ("red", "green", "blue"))]
        >>> posterior = pv.posteriors.MeanFieldNormal((2,), 3, net=partial(Features, columns))
        >>> posterior(torch.tensor([[38.0, 1.0]])).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        columns: Sequence[Column],
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        context: int = 0,
        net: Callable[..., Net | nn.Module] = MLP,
        missing: bool = False,
    ) -> None:
        super().__init__()
        if tuple(in_shape) != (len(columns),):
            raise ValueError(f"in_shape: expected ({len(columns)},), one number per column, got {tuple(in_shape)}")
        self.columns, self.takes_missing = tuple(columns), missing
        self.groups = list(grouped(self.columns).values())
        places = []
        for g, indices in enumerate(self.groups):
            first = self.columns[indices[0]]
            units = [[getattr(self.columns[i], u) for i in indices] for u in first.units]
            self.register_buffer(f"columns_{g}", torch.tensor(indices), persistent=False)
            self.register_buffer(f"units_{g}", torch.tensor(units), persistent=False)
            width = first.features(torch.zeros(1)).shape[-1]
            places += [(i, j) for i in indices for j in range(width)]
        order = sorted(range(len(places)), key=places.__getitem__)
        self.register_buffer("order", torch.tensor(order), persistent=False)
        width = self.features(torch.zeros(1, len(columns))).shape[-1]
        self.net = build(net, (width,), out_shape, context)

    def features(self, x: Tensor) -> Tensor:
        """Return the features, 0 for missing values."""
        parts = []
        for g, indices in enumerate(self.groups):
            here, units = x[..., self.get_buffer(f"columns_{g}")], self.get_buffer(f"units_{g}")
            parts.append(self.columns[indices[0]].features(here, *units).flatten(-2))
        observed = [(~torch.isnan(x)).to(x.dtype)] if self.takes_missing else []
        return torch.cat([torch.nan_to_num(torch.cat(parts, -1)[..., self.order]), *observed], -1)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the outputs of the network for rows of a table."""
        return self.net(self.features(x), *context)
