"""The logistic distribution, cut into equal bins."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.special import log_interval
from pyro_vae.distributions.supports import Grid

__all__ = ["DiscretizedLogistic", "draw_bins", "log_bins", "mean_bins"]


class DiscretizedLogistic(dist.TorchDistribution):
    r"""A logistic variable rounded to the levels :math:`x = k / (L - 1)`, the outermost bins open-ended.

    .. math:: p(x) = \operatorname{sigmoid} \frac{x + h - \mu}{s} - \operatorname{sigmoid} \frac{x - h - \mu}{s},
              \qquad h = \frac{1}{2 (L - 1)}

    with the first term 1 at x = 1 and the second 0 at x = 0.

    Args:
        loc: :math:`\mu`, in the units of x
        scale: s, in the units of x
        levels: L

    References:
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Example:
        >>> fn = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(0.1), 256)
        >>> fn.log_prob(fn.support.values()).logsumexp(0).abs() < 1e-5
        tensor(True)
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, levels: int = 256, *, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The levels."""
        return Grid(self.levels, 1 / (self.levels - 1))

    def expand(self, batch_shape: torch.Size, _instance: DiscretizedLogistic | None = None) -> DiscretizedLogistic:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        new.loc, new.scale, new.levels = self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.levels
        super(DiscretizedLogistic, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The mean of the rounded variable."""
        return mean_bins(self.loc, self.scale, self.levels)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw a logistic variable and round it."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            return draw_bins(self.loc.expand(shape), self.scale.expand(shape), self.levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the level ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return log_bins(value, self.loc, self.scale, self.levels)


def log_bins(value: Tensor, loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Return the log-probability of the bin of ``value``, everything in units of the bins."""
    top = levels - 1
    code, scale = torch.round(value * top), scale * top
    centre = code - loc * top
    low, high = (centre - 0.5) / scale, (centre + 0.5) / scale
    inside = log_interval(low, high, 1 / scale)
    return torch.where(code < 0.5, logsigmoid(high), torch.where(code > top - 0.5, logsigmoid(-low), inside))


def draw_bins(loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Draw one level for each location."""
    u = torch.rand_like(loc).clamp(min=torch.finfo(loc.dtype).tiny)
    x = loc + scale * (u.log() - torch.log1p(-u))
    return torch.round(x.clamp(0, 1) * (levels - 1)) / (levels - 1)


def mean_bins(loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    r"""Return the mean level, the sum of :math:`P(x > t)` over the edges t between the bins."""
    top = levels - 1
    total = torch.zeros_like(loc)
    for k in range(top):  # one edge at a time: all at once would take 255 times the memory of an image
        total = total + torch.sigmoid((loc - (k + 0.5) / top) / scale)
    return total / top
