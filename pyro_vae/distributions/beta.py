"""The beta distribution, accurate for large concentrations."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.distributions.special import deviance, factorial_remainder
from pyro_vae.distributions.supports import open_unit_interval

__all__ = ["Beta"]


class Beta(dist.Beta):
    r"""The beta distribution on the open interval (0, 1), without the cancellation of log-gamma functions.

    .. math:: p(x) = \frac{\Gamma(a + b)}{\Gamma(a) \Gamma(b)} x^{a - 1} (1 - x)^{b - 1}

    Args:
        concentration1: a
        concentration0: b

    Example:
        >>> Beta(torch.tensor(1e9), torch.tensor(1e9)).log_prob(torch.tensor(0.5))
        tensor(10.4824)
    """

    support = open_unit_interval

    def expand(self, batch_shape: torch.Size, _instance: Beta | None = None) -> Beta:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(Beta, _instance))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw, with the ends kept out that rounding would reach."""
        x = super().rsample(sample_shape)
        limits = torch.finfo(x.dtype)
        return x.clamp(limits.tiny, 1 - limits.eps / 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        a, b = self.concentration1, self.concentration0
        n, rest = a + b, 1 - value
        log_x, log_rest = value.log(), torch.log1p(-value)
        d = a * rest - b * value
        apart = deviance(a, n * value, d, (a / n).log() - log_x) + deviance(b, n * rest, -d, (b / n).log() - log_rest)
        constant = factorial_remainder(n) - factorial_remainder(a) - factorial_remainder(b) + a.log() + (b / n).log()
        return constant - apart - log_x - log_rest
