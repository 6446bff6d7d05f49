"""The Poisson distribution, accurate for large counts."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.distributions import special

__all__ = ["Poisson"]


class Poisson(dist.Poisson):
    r"""The Poisson distribution in its deviance form, which counts of a billion do not upset.

    .. math:: \log p(x) = x \log r - r - \log x! = -\Bigl(x \log \frac x r + r - x\Bigr) - g(x)

    with :math:`g(x) = \log x! - x \log x + x`, a small number.

    Args:
        rate: r

    References:
        Fast and accurate computation of binomial probabilities (Loader, 2000)

    Example:
        >>> Poisson(torch.tensor(1e9)).log_prob(torch.tensor(1e9))
        tensor(-11.2806)
    """

    def expand(self, batch_shape: torch.Size, _instance: Poisson | None = None) -> Poisson:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(Poisson, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the count ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return special.poisson(value, self.rate, self.rate.log())
