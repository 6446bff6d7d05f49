"""Bernoulli draws with a straight-through gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions.kl import register_kl
from torch.nn.functional import logsigmoid, softplus

__all__ = ["StraightThroughBernoulli"]


class StraightThroughBernoulli(dist.Bernoulli):
    r"""The Bernoulli, whose draws pass their gradient on to the probability as if they were it.

    .. math:: z = b + p - \operatorname{stop}(p), \qquad b \sim \mathrm{Bernoulli}(p)

    The draws are exactly 0 or 1 and the log-probability is that of the Bernoulli; the gradient is biased.

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

    def expand(
        self, batch_shape: torch.Size, _instance: StraightThroughBernoulli | None = None
    ) -> StraightThroughBernoulli:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(StraightThroughBernoulli, _instance))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw 0 or 1, with the gradient of the probability."""
        with torch.no_grad():
            bits = torch.bernoulli(self.probs.expand(self._extended_shape(sample_shape)))
        # the difference is an exact zero: bits stay bits
        return bits + (self.probs - self.probs.detach())

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability, linear in ``value``, so that it passes a gradient on."""
        if self._validate_args:
            self._validate_sample(value)
        return value * self.logits - softplus(self.logits)


@register_kl(StraightThroughBernoulli, torch.distributions.Bernoulli)
def kl_straight_through_bernoulli(p: StraightThroughBernoulli, q: torch.distributions.Bernoulli) -> Tensor:
    """Return the divergence; torch's own fails where only one of the two has the dimension of particles."""
    a, b = p.logits, q.logits
    up = torch.sigmoid(a) * (logsigmoid(a) - logsigmoid(b))
    return up + torch.sigmoid(-a) * (logsigmoid(-a) - logsigmoid(-b))
