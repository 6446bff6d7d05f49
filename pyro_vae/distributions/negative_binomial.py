"""Count distributions with more spread than Poisson and binomial, accurate for large counts."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.base import Distribution
from pyro_vae.distributions.special import deviance, factorial_remainder

__all__ = ["BetaBinomial", "NegativeBinomial", "ZeroInflatedNegativeBinomial", "shares_of"]


class NegativeBinomial(Distribution):
    r"""Counts with mean :math:`\mu` and variance :math:`\mu + \mu^2 / r`: Poisson counts with a gamma rate.

    .. math:: p(x) = \frac{\Gamma(x + r)}{\Gamma(r)\, x!}
              \Bigl(\frac{r}{r + \mu}\Bigr)^r \Bigl(\frac{\mu}{r + \mu}\Bigr)^x

    It is computed as a difference of deviances, which is accurate for large counts and in the Poisson limit of
    large r.

    Args:
        mean: :math:`\mu > 0`
        inverse_dispersion: :math:`r > 0`

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Example:
        >>> NegativeBinomial(torch.tensor(1e9), torch.tensor(1e9)).log_prob(torch.tensor(1e9))
        tensor(-11.6271)
    """

    arg_constraints = {"rate": constraints.positive, "inverse_dispersion": constraints.positive}
    support = constraints.nonnegative_integer

    def __init__(
        self, mean: Tensor | float, inverse_dispersion: Tensor | float, *, validate_args: bool | None = None
    ) -> None:
        self.rate, self.inverse_dispersion = broadcast_all(mean, inverse_dispersion)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        r"""The mean :math:`\mu`."""
        return self.rate

    @property
    def variance(self) -> Tensor:
        r"""The variance :math:`\mu + \mu^2 / r`."""
        return self.rate + self.rate**2 / self.inverse_dispersion

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample a rate from a gamma, then a count."""
        with torch.no_grad():
            r = self.inverse_dispersion
            return torch.poisson(dist.Gamma(r, r / self.rate, validate_args=False).sample(sample_shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        return log_negative_binomial(value, self.rate, self.inverse_dispersion)


def log_negative_binomial(x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """Return the log-probability of the count ``x``."""
    n, s = x + r, r + mean
    d = r * ((x - mean) / s)
    tilt = (s / n).log()
    log_ratio = torch.where(x > 0, x, 1.0).log() - mean.log() + tilt
    apart = deviance(r, n * (r / s), -d, tilt) + deviance(x, n * (mean / s), d, log_ratio)
    return (r / n).log() + factorial_remainder(n) - factorial_remainder(r) - factorial_remainder(x) - apart


def shares_of(size: Tensor, raw: Tensor, event_dim: int) -> Tensor:
    """Return positive means that sum to ``size`` over an event: the softmax of ``raw`` times ``size``.

    Args:
        size: totals, of shape ``(*batch,)``
        raw: logits of the shares, of shape ``(*batch, *event)``
        event_dim: number of event dimensions
    """
    shares = raw.flatten(raw.dim() - event_dim).softmax(-1).reshape(raw.shape)
    # a share may underflow, but a mean must be positive and its gradient (a count divided by it) finite
    return (size.reshape(*size.shape, *[1] * event_dim) * shares).clamp(min=1e-20)


class ZeroInflatedNegativeBinomial(Distribution):
    r"""A zero with probability :math:`\pi`, otherwise a negative binomial count.

    .. math:: p(x) = \pi\, [x = 0] + (1 - \pi)\, \mathrm{NB}(x; \mu, r), \qquad \operatorname{logit} \pi = t

    Args:
        mean: :math:`\mu`, the mean of the negative binomial
        inverse_dispersion: r
        gate_logits: log-odds t of an additional zero

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Example:
        >>> ZeroInflatedNegativeBinomial(torch.ones(3), torch.ones(3), torch.zeros(3)).mean
        tensor([0.5000, 0.5000, 0.5000])
    """

    arg_constraints = {**NegativeBinomial.arg_constraints, "gate_logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(
        self,
        mean: Tensor | float,
        inverse_dispersion: Tensor | float,
        gate_logits: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.rate, self.inverse_dispersion, self.gate_logits = broadcast_all(mean, inverse_dispersion, gate_logits)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        r"""The mean :math:`(1 - \pi) \mu`."""
        return torch.sigmoid(-self.gate_logits) * self.rate

    @property
    def variance(self) -> Tensor:
        r"""The variance :math:`(1 - \pi)(\mu + \mu^2 / r + \pi \mu^2)`."""
        rate, gate = self.rate, torch.sigmoid(self.gate_logits)
        return torch.sigmoid(-self.gate_logits) * (rate + rate**2 * (1 / self.inverse_dispersion + gate))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample a count and set it to 0 with probability pi."""
        with torch.no_grad():
            r = self.inverse_dispersion
            x = torch.poisson(dist.Gamma(r, r / self.rate, validate_args=False).sample(sample_shape))
            return x * torch.bernoulli(torch.sigmoid(-self.gate_logits).expand(x.shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        count = logsigmoid(-self.gate_logits) + log_negative_binomial(value, self.rate, self.inverse_dispersion)
        return torch.where(value == 0, torch.logaddexp(logsigmoid(self.gate_logits), count), count)


class BetaBinomial(Distribution):
    r"""Binomial counts with a beta distributed probability.

    .. math:: p(x) = \binom n x \frac{B(x + a, n - x + b)}{B(a, b)}
                   = \frac{\mathrm{NB}(x; a)\, \mathrm{NB}(n - x; b)}{\mathrm{NB}(n; a + b)}

    It is computed in the second form, three negative binomials with the same success probability, because the
    log-gamma functions of the first form cancel.

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
        a, b, n = broadcast_all(concentration1, concentration0, total_count)
        self.concentration1, self.concentration0, self.total_count = a, b, n
        super().__init__(a.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The counts from 0 to n."""
        return constraints.integer_interval(0, self.total_count)

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
        """Sample a probability, then a count."""
        with torch.no_grad():
            share = dist.Beta(self.concentration1, self.concentration0, validate_args=False).sample(sample_shape)
            return torch.binomial(self.total_count.expand(share.shape).contiguous(), share)

    def _log_prob(self, value: Tensor) -> Tensor:
        a, b, n = self.concentration1, self.concentration0, self.total_count
        odds = n / (a + b)
        both = log_negative_binomial(value, a * odds, a) + log_negative_binomial(n - value, b * odds, b)
        return both - log_negative_binomial(n, n, a + b)
