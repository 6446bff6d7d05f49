"""A normal truncated to a range, on the number line or on a logarithmic scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.base import Ranged
from pyro_vae.distributions.special import OUTSIDE, log_outside, mean_between

__all__ = ["TruncatedLogNormal", "TruncatedNormal"]

#: The mean leaves out tails that begin this many standard deviations from ``loc``.
WIDE = 8.0
#: Scale, in widths of the range, above which the density counts as uniform to second order.
UNIFORM = 30.0
#: Share of the range by which a rounded value may exceed it.
TOLERANCE = 1e-5


class TruncatedNormal(Ranged):
    r"""A normal truncated to a range, with a density outside it that is small but not zero.

    .. math:: p(x) = (1 - \epsilon) \frac{\mathcal N(x; \mu, \sigma^2)}{\Phi(\beta) - \Phi(\alpha)}, \quad
              \alpha = \frac{l - \mu}{\sigma} \le 0 \le \beta = \frac{h - \mu}{\sigma}, \qquad l \le x \le h

    Outside the range the mass :math:`\epsilon = 2^{-30}` decays exponentially, so that a value that was never
    observed has a finite density. Samples and ``mean`` are those of the range: a float32 cannot sample an event of
    probability :math:`\epsilon`.

    Args:
        loc: :math:`\mu`, inside the range, so that no difference of small probabilities is taken
        scale: :math:`\sigma`
        low, high: l and h, the ends of the range

    References:
        Simulation of truncated normal variables (Robert, 1995), https://doi.org/10.1007/BF00143942

    Example:
        >>> fn = TruncatedNormal(torch.tensor(0.9), torch.tensor(0.5), torch.tensor(0.0), torch.tensor(1.0))
        >>> fn.mean, fn.log_prob(torch.tensor([0.9, 1.5]))
        (tensor(0.6128), tensor([  0.3842, -21.9876]))
    """

    support = constraints.real

    @property
    def mean(self) -> Tensor:
        """The mean within the range."""
        ends = ((end - self.loc) / self.scale for end in (self.low, self.high))
        low, high = ((-end.square() / 2).exp() / math.sqrt(2 * math.pi) for end in ends)
        mean = self.loc + self.scale * (low - high) / (self.below + self.above)
        # of a nearly uniform density, to second order, as the difference has no digits left
        width, middle = self.high - self.low, (self.high + self.low) / 2
        flat = middle + (self.loc - middle) * (width / self.scale).square() / 12
        mean = torch.where(self.scale > UNIFORM * width, flat, mean)
        return torch.maximum(torch.minimum(mean, self.high), self.low)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Invert the distribution function, from the end of the range that keeps the digits of small probabilities."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            below, above = (self.below.expand(shape), self.above.expand(shape))
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device) * (below + above) - below
            t = torch.special.ndtri(0.5 - u.abs()).abs() * u.sign()
            x = torch.where(u == 0, self.loc, self.loc + self.scale * t)
            return self.value(torch.maximum(torch.minimum(x, self.high), self.low))

    @property
    def below(self) -> Tensor:
        """The mass of the normal between ``low`` and ``loc``."""
        return torch.erf((self.loc - self.low) / self.scale / math.sqrt(2)) / 2

    @property
    def above(self) -> Tensor:
        """The mass of the normal between ``loc`` and ``high``."""
        return torch.erf((self.high - self.loc) / self.scale / math.sqrt(2)) / 2

    def value(self, x: Tensor) -> Tensor:
        """Return a number on the line of the normal as a value of the distribution."""
        return x

    def log_density(self, x: Tensor) -> Tensor:
        """Return the log-density on the line of the normal."""
        width = self.high - self.low
        beyond = torch.maximum(self.low - x, x - self.high)
        t = (x - self.loc) / self.scale
        inside = -t.square() / 2 - self.scale.log() - math.log(2 * math.pi) / 2 - (self.below + self.above).log()
        far = beyond > TOLERANCE * width
        outside = log_outside(torch.where(far, beyond, 0.0) / width) - width.log()
        return torch.where(far, outside, inside + math.log1p(-OUTSIDE))

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.log_density(value)


class TruncatedLogNormal(TruncatedNormal):
    r"""A positive number whose logarithm is a :class:`TruncatedNormal`.

    .. math:: p(x) = \frac{1}{x}\, p_{\mathrm{TN}}(\log x)

    Args:
        loc, scale, low, high: of the logarithm

    Example:
        >>> fn = TruncatedLogNormal(torch.tensor(0.0), torch.tensor(9.0), torch.tensor(-1.0), torch.tensor(1.0))
        >>> fn.mean  # that of the log-normal is 4e17
        tensor(1.1749)
    """

    support = constraints.positive

    @property
    def mean(self) -> Tensor:
        """The mean within the range."""
        start = torch.maximum(self.low, self.loc - WIDE * self.scale)
        end = torch.minimum(self.high, self.loc + WIDE * self.scale)
        return mean_between(start, end, lambda x: -((x - self.loc) / self.scale).square() / 2, torch.exp)[0]

    def value(self, x: Tensor) -> Tensor:
        """Return the exponential."""
        return x.exp()

    def _log_prob(self, value: Tensor) -> Tensor:
        log_x = value.log()
        return self.log_density(log_x) - log_x
