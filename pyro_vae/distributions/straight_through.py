"""Discrete distributions with a straight-through gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions.kl import register_kl
from torch.nn.functional import logsigmoid, softplus

__all__ = ["StraightThroughBernoulli", "StraightThroughOneHotCategorical"]


class StraightThroughBernoulli(dist.Bernoulli):
    r"""The Bernoulli, with samples that carry the gradient of the probability.

    .. math:: z = b + p - \operatorname{stop}(p), \qquad b \sim \mathrm{Bernoulli}(p)

    The samples are exactly 0 or 1, and the log-probability is that of the Bernoulli. The gradient is biased.

    References:
        Estimating or propagating gradients through stochastic neurons for conditional computation
        (Bengio et al., 2013), https://arxiv.org/abs/1308.3432

    Args:
        logits: log-odds, shape ``(*batch,)``

    Example:
        >>> StraightThroughBernoulli(logits=torch.zeros(3)).rsample((2,)).shape
        torch.Size([2, 3])
    """

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample 0 or 1, with the gradient of the probability."""
        with torch.no_grad():
            bits = torch.bernoulli(self.probs.expand(self._extended_shape(sample_shape)))
        # the difference is exactly 0, so that the values stay 0 or 1
        return bits + (self.probs - self.probs.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability, linear in ``value`` so that it has a gradient in ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return value * self.logits - softplus(self.logits)


@register_kl(StraightThroughBernoulli, torch.distributions.Bernoulli)
def kl_straight_through_bernoulli(p: StraightThroughBernoulli, q: torch.distributions.Bernoulli) -> Tensor:
    """Return the KL divergence; torch's own fails where only one of the two has a particles dimension."""
    a, b = p.logits, q.logits
    up = torch.sigmoid(a) * (logsigmoid(a) - logsigmoid(b))
    return up + torch.sigmoid(-a) * (logsigmoid(-a) - logsigmoid(-b))


class StraightThroughOneHotCategorical(dist.OneHotCategorical):
    r"""The one-hot categorical, with samples that carry the gradient of the probabilities.

    .. math:: z = e_k + p - \operatorname{stop}(p), \qquad k \sim p

    The samples are exactly one-hot. The log-probability is that of the categorical, written as
    :math:`\sum_k z_k \log p_k` so that it has a gradient in z. The gradient is biased.

    References:
        Estimating or propagating gradients through stochastic neurons for conditional computation
        (Bengio et al., 2013), https://arxiv.org/abs/1308.3432

    Args:
        logits: unnormalized log-probabilities, shape ``(*batch, categories)``

    Example:
        >>> StraightThroughOneHotCategorical(logits=torch.zeros(4)).rsample((2,)).shape
        torch.Size([2, 4])
    """

    has_rsample = True

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample one-hot vectors, with the gradient of the probabilities."""
        with torch.no_grad():
            hot = super().sample(torch.Size(sample_shape))
        # the difference is exactly 0, so that the vectors stay one-hot
        return hot + (self.probs - self.probs.detach())

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample one-hot vectors, without a gradient."""
        with torch.no_grad():
            return super().sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability, linear in ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return (value * self.logits).sum(-1)
