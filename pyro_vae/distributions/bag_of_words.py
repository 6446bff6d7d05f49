"""Multinomial word counts with a different total in each document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.base import Distribution
from pyro_vae.distributions.special import factorial_remainder, log_poisson
from pyro_vae.distributions.supports import Bags

__all__ = ["BagOfWords"]


class BagOfWords(Distribution):
    r"""Multinomial counts, given their total.

    .. math:: p(x) = \frac{n!}{\prod_i x_i!} \prod_i \pi_i^{x_i}, \qquad n = \sum_i x_i

    The density uses the total n of each x. Only samples need ``total``.

    Args:
        logits: unnormalized log-probabilities, of shape ``(*batch, *event)``
        total: number of words of a sample
        event_dim: number of event dimensions

    Example:
        >>> fn = BagOfWords(torch.zeros(2, 5), total=7)
        >>> fn.sample().sum(-1), fn.log_prob(torch.ones(2, 5)).shape
        (tensor([7., 7.]), torch.Size([2]))
    """

    def __init__(
        self, logits: Tensor, total: int = 1, event_dim: int = 1, *, validate_args: bool | None = None
    ) -> None:
        cut = logits.dim() - event_dim
        self.logits, self.total = logits, total
        super().__init__(logits.shape[:cut], logits.shape[cut:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """Counts with any total."""
        return Bags(len(self.event_shape), self.total)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> BagOfWords:
        """Return the distribution expanded to ``batch_shape``."""
        new = super().expand(batch_shape)
        new.logits = self.logits.expand(*batch_shape, *self.event_shape)
        return new

    @property
    def log_probs(self) -> Tensor:
        """The log-probabilities of the words, flattened."""
        return self.logits.flatten(len(self.batch_shape)).log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        """The mean counts of a sample."""
        return self.total * self.log_probs.exp().reshape(self.logits.shape)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample ``total`` words and count them."""
        with torch.no_grad():
            fn = torch.distributions.Multinomial(self.total, logits=self.log_probs, validate_args=False)
            return fn.sample(torch.Size(sample_shape)).reshape(self._extended_shape(sample_shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        x = value.flatten(value.dim() - len(self.event_shape))
        n = x.sum(-1, keepdim=True)
        # independent Poisson counts given their total: large terms cancel inside each factor
        log_rate = torch.where(n > 0, n, 1.0).log() + self.log_probs
        rate = n * self.log_probs.exp()
        return log_poisson(x, rate, log_rate).sum(-1) + factorial_remainder(n).squeeze(-1)
