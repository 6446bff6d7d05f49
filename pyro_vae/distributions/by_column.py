"""Arrays whose columns have families of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

__all__ = ["ByColumn", "Columns"]


class Columns(constraints.Constraint):
    """A constraint for each column, of numbers along the last dimension.

    Args:
        supports: of groups of columns
        columns: for each group, the indices of its columns
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

    def check(self, value: Tensor) -> Tensor:
        """Return where ``value`` is allowed."""
        parts = [s.check(value[..., c]) for s, c in zip(self.supports, self.columns, strict=True)]
        return torch.cat(parts, -1)[..., order(self.columns)]


class ByColumn(dist.TorchDistribution):
    r"""Independent numbers, of which those of one column have one family: the last batch dimension is the columns.

    .. math:: p(x) = \prod_g \prod_{i \in g} p_g(x_i)

    Args:
        fns: one distribution a group, of batch shape ``(*batch, columns of the group)``
        columns: for each group, the indices of its columns
        filler: a value inside the support of each column, of shape ``(columns,)``; found by trial if not given

    Example:
        >>> fns = [dist.Normal(torch.zeros(5, 2), 1.0), dist.Bernoulli(logits=torch.zeros(5, 1))]
        >>> fn = ByColumn(fns, [torch.tensor([0, 2]), torch.tensor([1])])
        >>> fn.batch_shape, fn.log_prob(torch.zeros(5, 3)).shape
        (torch.Size([5, 3]), torch.Size([5, 3]))
    """

    arg_constraints = {}

    def __init__(
        self,
        fns: Sequence[dist.TorchDistribution],
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

    def expand(self, batch_shape: torch.Size, _instance: ByColumn | None = None) -> ByColumn:
        """Return the distribution with another batch shape, which must end in the same columns."""
        new = self._get_checked_instance(ByColumn, _instance)
        new.columns, new._filler = self.columns, self._filler
        lead = tuple(batch_shape)[:-1]
        new.fns = tuple(fn.expand(torch.Size((*lead, len(c)))) for fn, c in zip(self.fns, self.columns, strict=True))
        super(ByColumn, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The mean of each column; that of codes where a column holds them."""
        return self._join([fn.mean for fn in self.fns])

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw each group."""
        with torch.no_grad():
            return self._join([fn.sample(sample_shape) for fn in self.fns])

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of each entry."""
        if self._validate_args:
            self._validate_sample(value)
        return self._join([fn.log_prob(value[..., c]) for fn, c in zip(self.fns, self.columns, strict=True)])

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), -1)[..., order(self.columns)]


def order(columns: Sequence[Tensor]) -> Tensor:
    """Return where each column stands after the groups were put side by side."""
    return torch.cat(list(columns)).argsort()
