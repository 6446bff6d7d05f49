"""The gamma distribution, accurate for large concentrations."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.special import deviance, factorial_remainder

__all__ = ["Gamma"]


class Gamma(dist.Gamma):
    r"""The gamma distribution, without the cancellation of a log-gamma function against powers.

    .. math:: p(x) = \frac{r^k}{\Gamma(k)} x^{k - 1} e^{-r x}

    Args:
        concentration: k
        rate: r, one over the unit of x

    Example:
        >>> Gamma(torch.tensor(1e6), torch.tensor(1e6)).log_prob(torch.tensor(1.0))
        tensor(5.9888)
    """

    support = constraints.positive  # torch has it closed, but at 0 the density is 0 or infinite

    def expand(self, batch_shape: torch.Size, _instance: Gamma | None = None) -> Gamma:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(Gamma, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        k, log_x = self.concentration, value.log()
        mean = self.rate * value
        apart = deviance(k, mean, k - mean, k.log() - self.rate.log() - log_x)
        return k.log() - factorial_remainder(k) - apart - log_x
