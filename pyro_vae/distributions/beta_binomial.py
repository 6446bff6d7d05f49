"""The beta-binomial distribution, accurate for large counts."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_vae.distributions.negative_binomial import negative_binomial

__all__ = ["BetaBinomial"]


class BetaBinomial(dist.TorchDistribution):
    r"""Binomial counts whose probability is drawn from a beta.

    .. math:: p(x) = \binom n x \frac{B(x + a, n - x + b)}{B(a, b)}
                   = \frac{\mathrm{NB}(x; a)\, \mathrm{NB}(n - x; b)}{\mathrm{NB}(n; a + b)}

    The second form, of three negative binomials with one success probability, keeps its digits where the
    log-gamma functions of the first cancel.

    Args:
        concentration1: a
        concentration0: b
        total_count: n

    Example:
        >>> BetaBinomial(torch.ones(2), torch.ones(2), torch.tensor(9.0)).log_prob(torch.tensor([0.0, 5.0])).exp()
        tensor([0.1000, 0.1000])
    """

    arg_constraints = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
        "total_count": constraints.positive_integer,
    }

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        total_count: Tensor | int,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.concentration1, self.concentration0, self.total_count = broadcast_all(
            concentration1, concentration0, total_count
        )
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The counts from 0 to n."""
        return constraints.integer_interval(0, self.total_count)

    def expand(self, batch_shape: torch.Size, _instance: BetaBinomial | None = None) -> BetaBinomial:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(BetaBinomial, _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(BetaBinomial, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        r"""The mean :math:`n a / (a + b)`."""
        return self.total_count * (self.concentration1 / (self.concentration1 + self.concentration0))

    @property
    def variance(self) -> Tensor:
        """The variance."""
        size = self.concentration1 + self.concentration0
        share = self.concentration1 / size
        return self.total_count * share * (1 - share) * (size + self.total_count) / (size + 1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw a probability, then a count."""
        with torch.no_grad():
            share = dist.Beta(self.concentration1, self.concentration0, validate_args=False).sample(sample_shape)
            return torch.binomial(self.total_count.expand(share.shape).contiguous(), share)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the count ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        a, b, n = self.concentration1, self.concentration0, self.total_count
        odds = n / (a + b)
        both = negative_binomial(value, a * odds, a) + negative_binomial(n - value, b * odds, b)
        return both - negative_binomial(n, n, a + b)
