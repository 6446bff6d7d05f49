"""The negative binomial by mean and inverse dispersion."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_vae.distributions.special import deviance, factorial_remainder

__all__ = ["NegativeBinomial", "negative_binomial", "shares_of"]


class NegativeBinomial(dist.TorchDistribution):
    r"""Counts of mean :math:`\mu` and variance :math:`\mu + \mu^2 / r`: Poisson counts with a gamma rate.

    .. math:: p(x) = \frac{\Gamma(x + r)}{\Gamma(r)\, x!}
              \Bigl(\frac{r}{r + \mu}\Bigr)^r \Bigl(\frac{\mu}{r + \mu}\Bigr)^x

    It is computed as a difference of deviances, so that large counts and the Poisson limit of large r keep their
    digits.

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

    def expand(self, batch_shape: torch.Size, _instance: NegativeBinomial | None = None) -> NegativeBinomial:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(NegativeBinomial, _instance)
        new.rate, new.inverse_dispersion = self.rate.expand(batch_shape), self.inverse_dispersion.expand(batch_shape)
        super(NegativeBinomial, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        r"""The mean :math:`\mu`."""
        return self.rate

    @property
    def variance(self) -> Tensor:
        r"""The variance :math:`\mu + \mu^2 / r`."""
        return self.rate + self.rate**2 / self.inverse_dispersion

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw a rate from a gamma, then a count."""
        with torch.no_grad():
            r = self.inverse_dispersion
            return torch.poisson(dist.Gamma(r, r / self.rate, validate_args=False).sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the count ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return negative_binomial(value, self.rate, self.inverse_dispersion)


def negative_binomial(x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """Return the log-probability of the count ``x``."""
    n, s = x + r, r + mean
    d = r * ((x - mean) / s)
    tilt = (s / n).log()
    log_ratio = torch.where(x > 0, x, 1.0).log() - mean.log() + tilt
    apart = deviance(r, n * (r / s), -d, tilt) + deviance(x, n * (mean / s), d, log_ratio)
    return (r / n).log() + factorial_remainder(n) - factorial_remainder(r) - factorial_remainder(x) - apart


def shares_of(size: Tensor, raw: Tensor, event_dim: int) -> Tensor:
    """Return means that sum to ``size`` over an event, ``(*batch,)`` and ``(*batch, *event)`` to the latter shape."""
    shares = raw.flatten(raw.dim() - event_dim).softmax(-1).reshape(raw.shape)
    # a share may underflow, but a mean has to be positive, and its gradient, a count over it, finite
    return (size.reshape(*size.shape, *[1] * event_dim) * shares).clamp(min=1e-20)
