"""Logistic distributions and their mixtures, discretized into equal bins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.base import Distribution
from pyro_vae.distributions.special import log_interval, log_sum_exp
from pyro_vae.distributions.supports import Grid

__all__ = ["CoupledLogisticMixture", "DiscretizedLogistic", "DiscretizedLogisticMixture"]


class DiscretizedLogistic(Distribution):
    r"""A logistic variable rounded to the levels :math:`x = k / (L - 1)`, with open-ended outermost bins.

    .. math:: p(x) = \operatorname{sigmoid} \frac{x + h - \mu}{s} - \operatorname{sigmoid} \frac{x - h - \mu}{s},
              \qquad h = \frac{1}{2 (L - 1)}

    where the first term is 1 at x = 1 and the second 0 at x = 0.

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

    @property
    def mean(self) -> Tensor:
        """The mean of the rounded variable."""
        return mean_level(self.loc, self.scale, self.levels)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample a logistic variable and round it."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            return sample_levels(self.loc.expand(shape), self.scale.expand(shape), self.levels)

    def _log_prob(self, value: Tensor) -> Tensor:
        return log_levels(value, self.loc, self.scale, self.levels)


def log_levels(value: Tensor, loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Return the log-probability of the bin of ``value``."""
    # everything in units of the bins
    top = levels - 1
    code, scale = torch.round(value * top), scale * top
    centre = code - loc * top
    low, high = (centre - 0.5) / scale, (centre + 0.5) / scale
    inside = log_interval(low, high, 1 / scale)
    return torch.where(code < 0.5, logsigmoid(high), torch.where(code > top - 0.5, logsigmoid(-low), inside))


def sample_levels(loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Sample one level for each location."""
    u = torch.rand_like(loc).clamp(min=torch.finfo(loc.dtype).tiny)
    x = loc + scale * (u.log() - torch.log1p(-u))
    return torch.round(x.clamp(0, 1) * (levels - 1)) / (levels - 1)


def mean_level(loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    r"""Return the mean level, the sum of :math:`P(x > t)` over the edges t between the bins."""
    top = levels - 1
    total = torch.zeros_like(loc)
    for k in range(top):  # one edge at a time: all at once would take 255 times the memory of an image
        total = total + torch.sigmoid((loc - (k + 0.5) / top) / scale)
    return total / top


class DiscretizedLogisticMixture(Distribution):
    r"""A mixture of logistic variables rounded to the levels :math:`x = k / (L - 1)`.

    .. math:: p(x) = \sum_j \pi_j\, \mathrm{DL}(x; \mu_j, s_j), \qquad \pi = \operatorname{softmax}(t)

    Args:
        logits: t, of shape ``(*batch, components)``
        loc: :math:`\mu`, of the same shape
        scale: s, of the same shape
        levels: L

    References:
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517

    Example:
        >>> fn = DiscretizedLogisticMixture(torch.zeros(5, 2), torch.rand(5, 2), torch.ones(5, 2), 16)
        >>> fn.batch_shape
        torch.Size([5])
    """

    arg_constraints = {
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = DiscretizedLogistic.support

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, levels: int = 256, *, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape[:-1], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean of the rounded variable."""
        return (self.logits.softmax(-1) * mean_level(self.loc, self.scale, self.levels)).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample a component, then a level."""
        with torch.no_grad():
            which = dist.Categorical(logits=self.logits, validate_args=False).sample(sample_shape).unsqueeze(-1)
            shape = (*which.shape[:-1], self.loc.shape[-1])
            loc, scale = (t.expand(shape).gather(-1, which).squeeze(-1) for t in (self.loc, self.scale))
            return sample_levels(loc, scale, self.levels)

    def _log_prob(self, value: Tensor) -> Tensor:
        parts = log_levels(value.unsqueeze(-1), self.loc, self.scale, self.levels)
        return log_sum_exp(self.logits.log_softmax(-1) + parts)


class CoupledLogisticMixture(Distribution):
    r"""Pixels whose channels share a mixture component and depend on the channels before them.

    .. math:: p(x) = \prod_p \sum_j \pi_{pj} \prod_c
              \mathrm{DL}\Bigl(x_{cp};\ \mu_{cpj} + \sum_{b < c} a_{cbpj}\, x_{bp},\ s_{cpj}\Bigr)

    Args:
        logits: logits of :math:`\pi`, of shape ``(*batch, pixels, components)``
        loc: :math:`\mu`, of shape ``(*batch, channels, pixels, components)``
        scale: s, of the same shape
        coupling: a, of shape ``(*batch, channels (channels - 1) / 2, pixels, components)``, ordered by c, then b
        shape: shape of one example, channels first
        levels: number of levels of each channel

    References:
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517

    Example:
        >>> loc, coupling = torch.rand(5, 3, 16, 2), torch.zeros(5, 3, 16, 2)
        >>> fn = CoupledLogisticMixture(loc[:, 0], loc, torch.ones_like(loc), coupling, (3, 4, 4))
        >>> fn.batch_shape, fn.event_shape
        (torch.Size([5]), torch.Size([3, 4, 4]))
    """

    arg_constraints = {
        "logits": constraints.independent(constraints.real, 2),
        "loc": constraints.independent(constraints.real, 3),
        "scale": constraints.independent(constraints.positive, 3),
        "coupling": constraints.independent(constraints.real, 3),
    }

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        coupling: Tensor,
        shape: Sequence[int],
        levels: int = 256,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.loc, self.scale, self.coupling, self.levels = logits, loc, scale, coupling, levels
        super().__init__(loc.shape[:-3], torch.Size(shape), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """The levels."""
        return constraints.independent(Grid(self.levels, 1 / (self.levels - 1)), len(self.event_shape))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample the component of each pixel, then its channels one after the other."""
        with torch.no_grad():
            which = dist.Categorical(logits=self.logits, validate_args=False).sample(sample_shape)
            which = which.unsqueeze(-2).unsqueeze(-1)
            loc, scale, coupling = (
                t.expand(*sample_shape, *t.shape).gather(-1, which.expand(*sample_shape, *t.shape[:-1], 1)).squeeze(-1)
                for t in (self.loc, self.scale, self.coupling)
            )
            x: list[Tensor] = []
            for c in range(loc.shape[-2]):
                x.append(sample_levels(loc[..., c, :] + shift(coupling, x, -2), scale[..., c, :], self.levels))
            return torch.stack(x, -2).reshape(self._extended_shape(sample_shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        lead = value.shape[: value.dim() - len(self.event_shape)]
        channels = value.reshape(*lead, self.event_shape[0], -1, 1).unbind(-3)
        parts = self.logits.log_softmax(-1)
        for c, x in enumerate(channels):
            loc = self.loc[..., c, :, :] + shift(self.coupling, channels[:c], -3)
            parts = parts + log_levels(x, loc, self.scale[..., c, :, :], self.levels)
        return log_sum_exp(parts).sum(-1)


def shift(coupling: Tensor, before: Sequence[Tensor], axis: int) -> Tensor | float:
    """Return what the channels ``before`` add to the location of the next channel."""
    first = len(before) * (len(before) - 1) // 2
    return sum(coupling.select(axis, first + b) * x for b, x in enumerate(before)) if before else 0.0
