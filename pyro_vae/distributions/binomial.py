"""The binomial distribution, accurate for large counts."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyro_vae.distributions.special import deviance, factorial_remainder

__all__ = ["Binomial"]


class Binomial(dist.Binomial):
    r"""The binomial distribution in its deviance form, which large totals do not upset.

    .. math:: p(x) = \binom n x \lambda^x (1 - \lambda)^{n - x}, \qquad \operatorname{logit} \lambda = t

    Args:
        total_count: n
        logits: log-odds t

    References:
        Fast and accurate computation of binomial probabilities (Loader, 2000)

    Example:
        >>> Binomial(torch.tensor(1e6), logits=torch.tensor(0.0)).log_prob(torch.tensor(5e5))
        tensor(-7.1335)
    """

    def expand(self, batch_shape: torch.Size, _instance: Binomial | None = None) -> Binomial:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(Binomial, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the count ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        n, t = self.total_count, self.logits
        # n - 2 x and tanh(t/2) are exact near one half, where most large counts lie
        d = (2 * value - n) / 2 - n / 2 * torch.tanh(t / 2)
        apart = part(value, n, t, d) + part(n - value, n, -t, -d)
        return factorial_remainder(n) - factorial_remainder(value) - factorial_remainder(n - value) - apart


def part(x: Tensor, n: Tensor, t: Tensor, difference: Tensor) -> Tensor:
    """Return the deviance of ``x`` from n sigmoid(t)."""
    log_share = torch.where(x > 0, x / n, 1.0).log()
    return deviance(x, n * torch.sigmoid(t), difference, log_share + softplus(-t))
