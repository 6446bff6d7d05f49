"""Autoregressive distributions over arrays of discrete levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.base import Distribution
from pyro_vae.distributions.supports import Grid

__all__ = ["Autoregressive"]


class Autoregressive(Distribution):
    r"""An array of levels :math:`k / (L - 1)`, each given the entries before it in a fixed order.

    .. math:: p(x) = \prod_i p(x_i \mid x_1, \dots, x_{i - 1})

    A density takes one call of the network, a sample one call per entry.

    Args:
        logits: ``logits(x, condition)`` for x of shape ``(*batch, *event)`` returns logits of shape
            ``(*batch, *event, levels)``; the logits of an entry depend only on the entries before it
        condition: condition of all entries, of shape ``(*batch, *condition_shape)``
        shape: shape of one event
        order: indices into the flattened event, in the order of sampling
        levels: L
        condition_dim: number of dimensions of ``condition_shape``

    References:
        Pixel recurrent neural networks (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759

    Example:
        >>> def logits(x, condition):
        ...     return torch.zeros(*x.shape, 2)
        >>> Autoregressive(logits, torch.zeros(5, 1), (3,), range(3), 2).sample().shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        logits: Callable[[Tensor, Tensor], Tensor],
        condition: Tensor,
        shape: Sequence[int],
        order: Sequence[int],
        levels: int,
        *,
        condition_dim: int = 1,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.condition, self.order, self.levels = logits, condition, order, levels
        self.condition_dim = condition_dim
        super().__init__(
            condition.shape[: condition.dim() - condition_dim], torch.Size(shape), validate_args=validate_args
        )

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """The levels."""
        return constraints.independent(Grid(self.levels, 1 / (self.levels - 1)), len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Autoregressive:
        """Return the distribution expanded to ``batch_shape``."""
        new = super().expand(batch_shape)
        new.condition = self.condition_for(batch_shape)
        return new

    def condition_for(self, lead: Sequence[int]) -> Tensor:
        """Return the condition with leading dimensions ``lead``."""
        return self.condition.expand(*lead, *self.condition.shape[self.condition.dim() - self.condition_dim :])

    def values(self, codes: Tensor) -> Tensor:
        """Return the value for level numbers ``(*batch, entries)``."""
        x = codes.to(self.condition.dtype) / (self.levels - 1)
        return x.reshape(*codes.shape[:-1], *self.event_shape)

    def codes(self, value: Tensor) -> Tensor:
        """Return the level numbers ``(*batch, entries)`` of a value."""
        codes = torch.round(value * (self.levels - 1)).long()
        return codes.reshape(*value.shape[: value.dim() - len(self.event_shape)], -1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample one entry after the other."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            lead = shape[: len(shape) - len(self.event_shape)]
            condition = self.condition_for(lead)
            codes = torch.zeros(*lead, len(self.order), dtype=torch.long, device=condition.device)
            for i in self.order:
                logits = self.logits(self.values(codes), condition).reshape(*lead, -1, self.levels)[..., i, :]
                codes[..., i] = dist.Categorical(logits=logits, validate_args=False).sample()
            return self.values(codes)

    def _log_prob(self, value: Tensor) -> Tensor:
        lead = torch.broadcast_shapes(value.shape[: value.dim() - len(self.event_shape)], self.batch_shape)
        value = value.expand(*lead, *self.event_shape)
        logits = self.logits(value, self.condition_for(lead)).log_softmax(-1).reshape(*lead, -1, self.levels)
        return logits.gather(-1, self.codes(value).unsqueeze(-1)).squeeze(-1).sum(-1)
