"""The categorical from log-probabilities that are normalized already."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

__all__ = ["LogCategorical"]


class LogCategorical(dist.Categorical):
    r"""Codes 0, 1, ..., L - 1 with given logarithms of their probabilities.

    .. math:: \log p(k) = l_k, \qquad \sum_k e^{l_k} = 1

    ``Categorical(logits=...)`` normalizes once more what a softmax has normalized: with 256 levels a pixel that is a
    third of a training step, and it rounds.

    Args:
        logits: l, of shape ``(*batch, L)``; that they are normalized is not checked

    Example:
        >>> LogCategorical(torch.zeros(5, 3).log_softmax(-1)).log_prob(torch.zeros(5)).shape
        torch.Size([5])
    """

    arg_constraints = {"logits": constraints.real_vector}

    def __init__(self, logits: Tensor, *, validate_args: bool | None = None) -> None:
        self.logits = self._param = logits
        self._num_events = logits.shape[-1]
        torch.distributions.Distribution.__init__(self, logits.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: LogCategorical | None = None) -> LogCategorical:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(LogCategorical, _instance))
