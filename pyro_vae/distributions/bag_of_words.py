"""Counts of words, whose total differs from text to text."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.special import factorial_remainder, poisson
from pyro_vae.distributions.supports import Bags

__all__ = ["BagOfWords"]


class BagOfWords(dist.TorchDistribution):
    r"""Multinomial counts, given their total.

    .. math:: p(x) = \frac{n!}{\prod_i x_i!} \prod_i \pi_i^{x_i}, \qquad n = \sum_i x_i

    The total n is that of each x, as long or short as it is. Only a draw needs one from outside.

    Args:
        logits: logarithms of the probabilities up to a constant, of shape ``(*batch, *event)``
        total: how many words a draw has
        event_dim: number of dimensions of an event

    Example:
        >>> fn = BagOfWords(torch.zeros(2, 5), total=7)
        >>> fn.sample().sum(-1), fn.log_prob(torch.ones(2, 5)).shape
        (tensor([7., 7.]), torch.Size([2]))
    """

    arg_constraints = {}

    def __init__(
        self, logits: Tensor, total: int = 1, event_dim: int = 1, *, validate_args: bool | None = None
    ) -> None:
        cut = logits.dim() - event_dim
        self.logits, self.total = logits, total
        super().__init__(logits.shape[:cut], logits.shape[cut:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """Counts of any total."""
        return Bags(len(self.event_shape), self.total)

    def expand(self, batch_shape: torch.Size, _instance: BagOfWords | None = None) -> BagOfWords:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(BagOfWords, _instance)
        new.logits, new.total = self.logits.expand(*batch_shape, *self.event_shape), self.total
        super(BagOfWords, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def log_probs(self) -> Tensor:
        """Log-probabilities of the words, flattened."""
        return self.logits.flatten(len(self.batch_shape)).log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        """The mean counts of a draw."""
        return self.total * self.log_probs.exp().reshape(self.logits.shape)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw ``total`` words and count them."""
        with torch.no_grad():
            fn = torch.distributions.Multinomial(self.total, logits=self.log_probs, validate_args=False)
            return fn.sample(torch.Size(sample_shape)).reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the counts ``value``, given their total."""
        if self._validate_args:
            self._validate_sample(value)
        x = value.flatten(value.dim() - len(self.event_shape))
        n = x.sum(-1, keepdim=True)
        # independent Poisson counts given their total: the large terms cancel inside each of them
        log_rate = torch.where(n > 0, n, 1.0).log() + self.log_probs
        rate = n * self.log_probs.exp()
        return poisson(x, rate, log_rate).sum(-1) + factorial_remainder(n).squeeze(-1)
