"""The Bernoulli form read at grey values."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch.distributions import constraints

__all__ = ["GreyBernoulli"]


class GreyBernoulli(dist.Bernoulli):
    r"""The Bernoulli log-probability read at grey values in [0, 1]: a cross-entropy, **not** a density.

    .. math:: \ell(x) = x \log p + (1 - x) \log(1 - p), \qquad x \in [0, 1]

    It is what many public VAEs train on grey pixels. Its values are no log-likelihoods and cannot be compared
    with those of a distribution.

    Example:
        >>> GreyBernoulli(probs=torch.tensor(0.5)).log_prob(torch.tensor(0.3))
        tensor(-0.6931)
    """

    support = constraints.unit_interval

    def expand(self, batch_shape: torch.Size, _instance: GreyBernoulli | None = None) -> GreyBernoulli:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(GreyBernoulli, _instance))
