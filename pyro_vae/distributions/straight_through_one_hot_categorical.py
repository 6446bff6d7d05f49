"""One-hot draws with a straight-through gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor

__all__ = ["StraightThroughOneHotCategorical"]


class StraightThroughOneHotCategorical(dist.OneHotCategorical):
    r"""The one-hot categorical, whose draws pass their gradient on to the probabilities as if they were them.

    .. math:: z = e_k + p - \operatorname{stop}(p), \qquad k \sim p

    The draws are exactly one-hot and the log-probability is that of the categorical, written
    :math:`\sum_k z_k \log p_k` so that it passes a gradient on to the draw; the gradient is biased.

    References:
        Estimating or propagating gradients through stochastic neurons for conditional computation
        (Bengio et al., 2013), https://arxiv.org/abs/1308.3432

    Args:
        logits: unnormalised log-probabilities, shape ``(*batch, categories)``

    Example:
        >>> StraightThroughOneHotCategorical(logits=torch.zeros(4)).rsample((2,)).shape
        torch.Size([2, 4])
    """

    has_rsample = True

    def expand(
        self, batch_shape: torch.Size, _instance: StraightThroughOneHotCategorical | None = None
    ) -> StraightThroughOneHotCategorical:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(StraightThroughOneHotCategorical, _instance))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw a one-hot vector, with the gradient of the probabilities."""
        with torch.no_grad():
            hot = super().sample(torch.Size(sample_shape))
        # the difference is an exact zero: one-hot vectors stay one-hot
        return hot + (self.probs - self.probs.detach())

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw a one-hot vector."""
        with torch.no_grad():
            return super().sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability, linear in ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return (value * self.logits).sum(-1)
