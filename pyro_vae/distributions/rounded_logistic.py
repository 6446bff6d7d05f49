"""A logistic truncated to a range of whole numbers and rounded."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.base import Ranged
from pyro_vae.distributions.special import OUTSIDE, log_interval, log_outside, mean_between
from pyro_vae.distributions.supports import whole_numbers

__all__ = ["RoundedLogistic"]

#: The mean leaves out tails that begin this many scales from ``loc``.
WIDE = 20.0
#: Scale from which on the mean is an integral; below it is a sum over this many whole numbers on each side.
SMOOTH, NEIGHBOURS = 0.75, 12


class RoundedLogistic(Ranged):
    r"""A logistic truncated to a range of whole numbers and rounded, with small probabilities outside it.

    .. math:: p(k) = (1 - \epsilon) \frac{F(k + \frac12) - F(k - \frac12)}{F(h + \frac12) - F(l - \frac12)}, \qquad
              F(x) = \operatorname{sigmoid} \frac{x - \mu}{s}, \quad k = l, \dots, h

    Outside the range the mass :math:`\epsilon = 2^{-30}` decays geometrically. Samples and ``mean`` are those of
    the range, as in :class:`TruncatedNormal`.

    Args:
        loc: :math:`\mu`
        scale: s
        low, high: l and h, the smallest and the largest number

    References:
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Example:
        >>> fn = RoundedLogistic(torch.tensor(2.2), torch.tensor(1.0), torch.tensor(-3.0), torch.tensor(5.0))
        >>> fn.log_prob(torch.arange(-3.0, 6.0)).exp().sum()
        tensor(1.)
    """

    support = whole_numbers

    @property
    def mean(self) -> Tensor:
        """The mean within the range."""
        reach = WIDE * self.scale
        near = torch.floor(self.loc + 0.5).clamp(self.low, self.high)
        total, mass = torch.zeros_like(near), torch.zeros_like(near)
        for step in range(-NEIGHBOURS, NEIGHBOURS + 1):
            k = near + step
            share = torch.where((k >= self.low) & (k <= self.high), self.log_inside(k).exp(), 0.0)
            total, mass = total + step * share, mass + share
        low, high = (self.low - 0.5 - self.loc).clamp(min=-reach), (self.high + 0.5 - self.loc).clamp(max=reach)
        smooth, whole = mean_between(low, high, lambda t: logistic(t / self.scale), lambda t: t)
        # rounding adds the slope of the density, to second order
        edges = logistic(high / self.scale).exp() - logistic(low / self.scale).exp()
        smooth = self.loc + smooth - edges / whole / 12
        return torch.where(self.scale < SMOOTH, near + total / mass, smooth).clamp(self.low, self.high)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample a truncated logistic and round it."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            low, high = self._ends()
            p = torch.lerp(torch.sigmoid(low).expand(shape), torch.sigmoid(high).expand(shape), u)
            x = self.loc + self.scale * torch.logit(p)
            return x.round().clamp(self.low, self.high)

    def log_inside(self, k: Tensor) -> Tensor:
        """Return the log-probability of a number in the range."""
        low, high = self._ends()
        t = k - self.loc
        part = log_interval((t - 0.5) / self.scale, (t + 0.5) / self.scale, 1 / self.scale)
        return part - log_interval(low, high, high - low)

    def _ends(self) -> tuple[Tensor, Tensor]:
        """Return the ends of the range in units of the logistic."""
        return (self.low - 0.5 - self.loc) / self.scale, (self.high + 0.5 - self.loc) / self.scale

    def _log_prob(self, value: Tensor) -> Tensor:
        width = self.high - self.low + 1
        beyond = torch.maximum(self.low - value, value - self.high)
        far = beyond > 0
        # a geometric sequence whose ratio is that of the exponential over one step
        steps = log_outside((torch.where(far, beyond, 1.0) - 1) / width) + torch.log(-torch.expm1(-1 / width))
        inside = self.log_inside(torch.where(far, self.low, value))
        return torch.where(far, steps, inside + math.log1p(-OUTSIDE))


def logistic(t: Tensor) -> Tensor:
    """Return the log-density of the standard logistic."""
    return logsigmoid(t) + logsigmoid(-t)
