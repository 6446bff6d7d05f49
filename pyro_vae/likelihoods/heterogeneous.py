"""The likelihood of a table whose columns have types of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.data.tables import Binary, Categorical, Column, Count, Ordinal, Positive, Real, schema
from pyro_vae.distributions import ByColumn
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build

__all__ = ["Heterogeneous"]


class Heterogeneous(Conditional):
    r"""A row of a table whose columns are real, positive, counts, grades, categories or binary.

    .. math:: p(x \mid z) = \prod_j p_j(x_j \mid \mathrm{net}(z)_j)

    with a normal for a Real column, a log-normal for Positive, a negative binomial for Count, an ordered logistic
    for Ordinal, a categorical for Categorical and a Bernoulli for Binary. The network speaks in standardised units;
    x, draws and densities are in those of the table, so that densities of models with other units compare.

    References:
        Handling incomplete heterogeneous data using VAEs (Nazabal et al., 2020), https://arxiv.org/abs/1807.03653

    Args:
        latent: number of latents
        shape: ``(number of columns,)``
        columns: objects of ``pyro_vae.data.tables``, one a column; :meth:`schema` infers them from a table
        net: makes the decoder network, ``net((latent,), (outputs,))`` with the outputs of all columns in turn
        context: how many numbers of context one datum brings beside z

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``: numbers as they are, labels as
        codes 0, 1, 2, ... in the order of the column's values.

    Raises:
        ValueError: the number of columns is not that of ``shape``.

    Example:
        >>> columns = Heterogeneous.schema({"age": [38.5, 21.0, 55.2], "colour": ["red", "green", "blue"]})
        >>> [type(c).__name__ for c in columns]
        ['Positive', 'Categorical']
        >>> Heterogeneous(3, (2,), columns=columns)(torch.zeros(5, 3)).event_shape
        torch.Size([2])
    """

    hint = (
        "Give the column another type: Real takes any number, Positive those above 0, Count 0, 1, 2, ..., and labels "
        "are codes 0, 1, 2, ... as pyro_vae.data.Table makes them."
    )

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        columns: Sequence[Column],
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.context, self.shape, self.columns = context, as_shape(shape), tuple(columns)
        if self.shape != (len(self.columns),):
            raise ValueError(f"columns: got {len(self.columns)} for data of shape {self.shape}: expected one an entry")
        self.net = build(net, (latent,), (sum(c.outputs for c in self.columns),), context)
        # columns of one type and as many labels are computed at once
        self.groups: list[list[int]] = list(grouped(self.columns).values())
        starts = [0]
        for c in self.columns:
            starts.append(starts[-1] + c.outputs)
        for g, indices in enumerate(self.groups):
            rows = [list(range(starts[i], starts[i + 1])) for i in indices]
            units = [[getattr(self.columns[i], u) for i in indices] for u in self.columns[indices[0]].units]
            self.register_buffer(f"columns_{g}", torch.tensor(indices), persistent=False)
            self.register_buffer(f"outputs_{g}", torch.tensor(rows), persistent=False)
            self.register_buffer(f"units_{g}", torch.tensor(units))
        # supports do not change, and no step has to look for a value inside them
        self.register_buffer("filler", None, persistent=False)
        self.filler = self.split(torch.zeros(starts[-1])).filler

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> Heterogeneous:
        """Build a small instance with as many columns as ``shape`` has entries, of all types in turn."""
        types = (
            lambda name: Real(name, 2.0, 3.0),
            lambda name: Categorical(name, ("a", "b", "c")),
            lambda name: Positive(name, 1.0, 0.5),
            lambda name: Count(name, 4.0),
            lambda name: Ordinal(name, (1, 2, 3, 4)),
            lambda name: Binary(name, ("no", "yes")),
        )
        size = math.prod(shape)
        return cls(latent, (size,), columns=[types[i % len(types)](str(i)) for i in range(size)])

    @staticmethod
    def schema(table: Any) -> tuple[Column, ...]:
        """Infer the columns of a data frame, a dict of columns or an array; see ``pyro_vae.data.tables.infer``."""
        return schema(table)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        return self.split(self.net(z, *context)).to_event(1)

    def split(self, raw: Tensor) -> ByColumn:
        """Return the distribution of each column, from what the network gives for all of them."""
        fns, columns = [], []
        for g, indices in enumerate(self.groups):
            group = raw[..., self.get_buffer(f"outputs_{g}")]
            fns.append(self.columns[indices[0]].family(group, *self.get_buffer(f"units_{g}")))
            columns.append(self.get_buffer(f"columns_{g}"))
        return ByColumn(fns, columns, filler=self.filler)


def grouped(columns: Sequence[Column]) -> dict[tuple[type[Column], int], list[int]]:
    """Return the indices of the columns of each type and number of outputs."""
    groups: dict[tuple[type[Column], int], list[int]] = {}
    for i, c in enumerate(columns):
        groups.setdefault((type(c), c.outputs), []).append(i)
    return groups
