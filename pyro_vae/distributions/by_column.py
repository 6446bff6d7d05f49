"""Independent columns with a distribution family each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.base import Distribution

__all__ = ["ByColumn", "Columns"]


class Columns(constraints.Constraint):
    """A constraint per column along the last dimension.

    Args:
        supports: the constraint of each group of columns
        columns: the indices of the columns of each group
    """

    is_discrete = False
    event_dim = 0

    def __init__(self, supports: Sequence[constraints.Constraint], columns: Sequence[Tensor]) -> None:
        self.supports, self.columns = tuple(supports), tuple(columns)
        super().__init__()

    def __repr__(self) -> str:
        words = {
            constraints.real: "real numbers",
            constraints.positive: "positive numbers",
            constraints.nonnegative_integer: "counts 0, 1, 2, ...",
            constraints.boolean: "0 or 1",
        }
        return "; ".join(
            f"in the columns {c.tolist()} {words.get(s, s)}" for s, c in zip(self.supports, self.columns, strict=True)
        )

    def of(self, column: int) -> constraints.Constraint:
        """Return the constraint of one column."""
        return next(s for s, c in zip(self.supports, self.columns, strict=True) if column in c)

    def check(self, value: Tensor) -> Tensor:
        """Return where ``value`` satisfies the constraint of its column."""
        parts = [s.check(value[..., c]) for s, c in zip(self.supports, self.columns, strict=True)]
        return torch.cat(parts, -1)[..., order(self.columns)]


class ByColumn(Distribution):
    r"""Independent columns, along the last batch dimension, with a distribution family each.

    .. math:: p(x) = \prod_g \prod_{i \in g} p_g(x_i)

    Args:
        fns: one distribution per group of columns, of batch shape ``(*batch, columns of the group)``
        columns: the indices of the columns of each group
        filler: a value inside the support of each column, of shape ``(columns,)``; found by trial if None

    Example:
        >>> from pyro import distributions as dist
        >>> fns = [dist.Normal(torch.zeros(5, 2), 1.0), dist.Bernoulli(logits=torch.zeros(5, 1))]
        >>> fn = ByColumn(fns, [torch.tensor([0, 2]), torch.tensor([1])])
        >>> fn.batch_shape, fn.log_prob(torch.zeros(5, 3)).shape
        (torch.Size([5, 3]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        fns: Sequence[TorchDistributionMixin],
        columns: Sequence[Tensor],
        *,
        filler: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.fns, self.columns, self._filler = tuple(fns), tuple(columns), filler
        width = sum(len(c) for c in self.columns)
        super().__init__(torch.Size((*self.fns[0].batch_shape[:-1], width)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The support of each column."""
        return Columns([fn.support for fn in self.fns], self.columns)

    @property
    def filler(self) -> Tensor:
        """A value inside the support of each column, of shape ``(columns,)``."""
        if self._filler is not None:
            return self._filler
        values = []
        for fn, c in zip(self.fns, self.columns, strict=True):
            inside = next(v for v in (0.0, 1.0, 0.5) if fn.support.check(torch.tensor(v)).all())
            values.append(torch.full((len(c),), inside, device=c.device))
        return torch.cat(values)[order(self.columns)]

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ByColumn:
        """Return the distribution expanded to ``batch_shape``, which must end in the same columns."""
        new = super().expand(batch_shape)
        lead = tuple(batch_shape)[:-1]
        new.fns = tuple(fn.expand(torch.Size((*lead, len(c)))) for fn, c in zip(self.fns, self.columns, strict=True))
        return new

    @property
    def mean(self) -> Tensor:
        """The mean of each column."""
        return self._join([fn.mean for fn in self.fns])

    @property
    def has_rsample(self) -> bool:
        """Whether all groups have a reparameterized sampler."""
        return all(fn.has_rsample for fn in self.fns)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample each group by its reparameterized sampler."""
        return self._join([fn.rsample(sample_shape) for fn in self.fns])

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample each group."""
        with torch.no_grad():
            return self._join([fn.sample(sample_shape) for fn in self.fns])

    def _log_prob(self, value: Tensor) -> Tensor:
        return self._join([fn.log_prob(value[..., c]) for fn, c in zip(self.fns, self.columns, strict=True)])

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), -1)[..., order(self.columns)]


def order(columns: Sequence[Tensor]) -> Tensor:
    """Return the position of each column in the concatenation of the groups."""
    return torch.cat(list(columns)).argsort()
