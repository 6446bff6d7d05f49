"""The likelihood of a table with columns of different types."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.data.tables import Binary, Categorical, Column, Count, Integer, Ordinal, Positive, Real, schema
from pyro_vae.data.tables.column import grouped
from pyro_vae.distributions import ByColumn
from pyro_vae.nets import MLP, NetBuilder, Shape
from pyro_vae.nets.contract import build
from pyro_vae.nets.shapes import as_shape

__all__ = ["Heterogeneous"]


class Heterogeneous(Conditional):
    r"""A row of a table with real, positive, integer, count, ordinal, categorical and binary columns.

    .. math:: p(x \mid z) = \prod_j p_j(x_j \mid \mathrm{net}(z)_j)

    The density is normal for a Real column, log-normal for Positive, rounded logistic for Integer, negative binomial
    for Count, ordered logistic for Ordinal, categorical for Categorical and Bernoulli for Binary. The first three are
    truncated to the range of the column if it has one, so that samples and means stay inside. The network works in
    standardized units; x, samples and densities are in the units of the table, so that densities of different models
    are comparable.

    The posterior needs an encoder that standardizes as well: ``net=functools.partial(pyro_vae.data.tables.Features,
    columns)``. Without it, columns with large numbers hide all others from the encoder.

    References:
        Handling incomplete heterogeneous data using VAEs (Nazabal et al., 2020), https://arxiv.org/abs/1807.03653

    Args:
        latent: number of latents
        shape: ``(number of columns,)``
        columns: one object of ``pyro_vae.data.tables`` per column; :meth:`schema` infers them from a table
        net: builds the decoder, ``net((latent,), (outputs,))``, with the outputs of all columns in order
        context: width of the context in addition to z

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``. Labels are codes 0, 1, 2, ... in
        the order of the values of their column.

    Raises:
        ValueError: ``shape`` is not ``(number of columns,)``.

    Example:
        >>> columns = Heterogeneous.schema({"age": [38.5, 21.0, 55.2], "colour": ["red", "green", "blue"]})
        >>> [type(c).__name__ for c in columns]
        ['Positive', 'Categorical']
        >>> Heterogeneous(3, (2,), columns=columns)(torch.zeros(5, 3)).event_shape
        torch.Size([2])
    """

    hint = (
        "Change the type of the column: Real for any number, Positive for numbers above 0, Integer for whole numbers, "
        "Count for 0, 1, 2, ...; "
        "labels are codes 0, 1, 2, ... as made by pyro_vae.data.Table."
    )

    def __init__(
        self, latent: int, shape: Shape, *, columns: Sequence[Column], net: NetBuilder = MLP, context: int = 0
    ) -> None:
        super().__init__(latent=latent, context=context)
        self.shape, self.columns = as_shape(shape), tuple(columns)
        if self.shape != (len(self.columns),):
            raise ValueError(f"columns: expected one per entry of shape {self.shape}, got {len(self.columns)}")
        self.net = build(net, (latent,), (sum(c.outputs for c in self.columns),), context)
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
        # a value inside each support, found once instead of in each step
        self.register_buffer("filler", None, persistent=False)
        self.filler = self.by_column(torch.zeros(starts[-1]), partial(Heterogeneous.family, self)).filler

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> Heterogeneous:
        """Build a small instance with one column per entry of ``shape``, cycling through all types."""
        types = (
            lambda name: Real(name, 2.0, 3.0),
            lambda name: Categorical(name, ("a", "b", "c")),
            lambda name: Positive(name, 1.0, 0.5),
            lambda name: Count(name, 4.0),
            lambda name: Ordinal(name, (1, 2, 3, 4)),
            lambda name: Binary(name, ("no", "yes")),
            lambda name: Integer(name, 10.0, 3.0, 0, 30),
            lambda name: Real(name, 0.4, 0.3, 0.0, 1.0),
            lambda name: Positive(name, 1.0, 0.5, 0.5, 9.0),
        )
        size = math.prod(shape)
        columns = [types[i % len(types)](str(i)) for i in range(size)]
        return super().example(latent=latent, shape=(size,), **{"columns": columns, **options})

    @staticmethod
    def schema(table: Any, types: Mapping[Any, Any] | None = None) -> tuple[Column, ...]:
        """Infer the columns of a data frame, a dict of columns or an array; see ``pyro_vae.data.tables.schema``."""
        return schema(table, types)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        return self.split(self.net(z, *context)).to_event(1)

    def split(self, raw: Tensor) -> ByColumn:
        """Return the distribution of all columns, given the outputs of the network."""
        return self.by_column(raw, self.family)

    def by_column(self, raw: Tensor, family: Callable[..., dist.TorchDistribution]) -> ByColumn:
        """Return the distribution of all columns, where ``family`` returns that of the columns of one type."""
        fns, columns = [], []
        for g, indices in enumerate(self.groups):
            group = raw[..., self.get_buffer(f"outputs_{g}")]
            fns.append(family(self.columns[indices[0]], group, *self.get_buffer(f"units_{g}")))
            columns.append(self.get_buffer(f"columns_{g}"))
        return ByColumn(fns, columns, filler=self.filler)

    def family(self, column: Column, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return the distribution of several columns of one type, from outputs of the network and their units."""
        return column.family(raw, *units)
