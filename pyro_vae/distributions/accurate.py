"""Distributions of torch with log-densities that stay accurate in float32."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import softplus

from pyro_vae.distributions.special import deviance, factorial_remainder, log_poisson
from pyro_vae.distributions.supports import open_unit_interval

__all__ = ["Beta", "Binomial", "Gamma", "Poisson", "StudentT"]


class Beta(dist.Beta):
    r"""The beta distribution on the open interval (0, 1), accurate for large concentrations.

    .. math:: p(x) = \frac{\Gamma(a + b)}{\Gamma(a) \Gamma(b)} x^{a - 1} (1 - x)^{b - 1}

    Args:
        concentration1: a
        concentration0: b

    Example:
        >>> Beta(torch.tensor(1e9), torch.tensor(1e9)).log_prob(torch.tensor(0.5))
        tensor(10.4824)
    """

    support: Any = open_unit_interval

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample, without the end points 0 and 1 that rounding could reach."""
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


class Binomial(dist.Binomial):
    r"""The binomial distribution in its deviance form, accurate for large counts.

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

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the count ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        n, t = self.total_count, self.logits
        # n - 2 x and tanh(t/2) are exact near one half, where most large counts lie
        d = (2 * value - n) / 2 - n / 2 * torch.tanh(t / 2)
        apart = binomial_deviance(value, n, t, d) + binomial_deviance(n - value, n, -t, -d)
        return factorial_remainder(n) - factorial_remainder(value) - factorial_remainder(n - value) - apart


def binomial_deviance(x: Tensor, n: Tensor, t: Tensor, difference: Tensor) -> Tensor:
    """Return the deviance of ``x`` from n sigmoid(t)."""
    log_share = torch.where(x > 0, x / n, 1.0).log()
    return deviance(x, n * torch.sigmoid(t), difference, log_share + softplus(-t))


class Gamma(dist.Gamma):
    r"""The gamma distribution, accurate for large concentrations.

    .. math:: p(x) = \frac{r^k}{\Gamma(k)} x^{k - 1} e^{-r x}

    Args:
        concentration: k
        rate: r, one over the unit of x

    Example:
        >>> Gamma(torch.tensor(1e6), torch.tensor(1e6)).log_prob(torch.tensor(1.0))
        tensor(5.9888)
    """

    support: Any = constraints.positive  # torch includes 0, where the density is 0 or infinite

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        k, log_x = self.concentration, value.log()
        mean = self.rate * value
        apart = deviance(k, mean, k - mean, k.log() - self.rate.log() - log_x)
        return k.log() - factorial_remainder(k) - apart - log_x


class Poisson(dist.Poisson):
    r"""The Poisson distribution in its deviance form, accurate for counts of a billion.

    .. math:: \log p(x) = x \log r - r - \log x! = -\Bigl(x \log \frac x r + r - x\Bigr) - g(x)

    with the small number :math:`g(x) = \log x! - x \log x + x`.

    Args:
        rate: r

    References:
        Fast and accurate computation of binomial probabilities (Loader, 2000)

    Example:
        >>> Poisson(torch.tensor(1e9)).log_prob(torch.tensor(1e9))
        tensor(-11.2806)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the count ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return log_poisson(value, self.rate, self.rate.log())


class StudentT(dist.StudentT):
    r"""Student's t, accurate for every number of degrees of freedom.

    .. math:: p(x) = \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac \nu 2) \sqrt{\pi \nu}\, \sigma}
              \Bigl(1 + \frac{y^2}{\nu}\Bigr)^{-\frac{\nu + 1}{2}}, \qquad y = \frac{x - \mu}{\sigma}

    torch subtracts two log-gamma functions, which leaves no correct digit in float32 for :math:`\nu` above 1e6, and
    squares y before it takes a logarithm.

    Args:
        df: degrees of freedom :math:`\nu > 0`
        loc: :math:`\mu`
        scale: :math:`\sigma`

    Example:
        >>> StudentT(torch.tensor(1e9)).log_prob(torch.tensor(0.0))
        tensor(-0.9189)
    """

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        # torch's constructor copies the rate to the device on each call, which blocks
        self._chi2 = torch.distributions.Gamma(self.df / 2, torch.full_like(self.df, 0.5), validate_args=False)
        torch.distributions.Distribution.__init__(self, self.df.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: StudentT | None = None) -> StudentT:
        """Return the distribution expanded to ``batch_shape``."""
        return super().expand(batch_shape, self._get_checked_instance(StudentT, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        half = self.df / 2
        constant = factorial_remainder(half + 0.5) - factorial_remainder(half) - 0.5 * math.log(2 * math.pi) - 0.5
        constant = constant + (half - 0.5) * torch.log1p(0.5 / half)
        w = ((value - self.loc) / self.scale) / self.df.sqrt()
        far = w.abs() > 1e8
        tail = torch.where(far, 2 * torch.where(far, w, 1.0).abs().log(), torch.log1p(torch.where(far, 0.0, w) ** 2))
        return constant - self.scale.log() - (half + 0.5) * tail
