"""Mixtures of logistic distributions, cut into equal bins."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.discretized_logistic import draw_bins, log_bins, mean_bins
from pyro_vae.distributions.special import log_total
from pyro_vae.distributions.supports import Grid

__all__ = ["DiscretizedLogisticMixture"]


class DiscretizedLogisticMixture(dist.TorchDistribution):
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

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, levels: int = 256, *, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The levels."""
        return Grid(self.levels, 1 / (self.levels - 1))

    def expand(
        self, batch_shape: torch.Size, _instance: DiscretizedLogisticMixture | None = None
    ) -> DiscretizedLogisticMixture:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(DiscretizedLogisticMixture, _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(*batch_shape, -1))
        new.levels = self.levels
        super(DiscretizedLogisticMixture, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The mean of the rounded variable."""
        return (self.logits.softmax(-1) * mean_bins(self.loc, self.scale, self.levels)).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw a component, then a level."""
        with torch.no_grad():
            which = dist.Categorical(logits=self.logits, validate_args=False).sample(sample_shape).unsqueeze(-1)
            shape = (*which.shape[:-1], self.loc.shape[-1])
            loc, scale = (t.expand(shape).gather(-1, which).squeeze(-1) for t in (self.loc, self.scale))
            return draw_bins(loc, scale, self.levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the level ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        parts = log_bins(value.unsqueeze(-1), self.loc, self.scale, self.levels)
        return log_total(self.logits.log_softmax(-1) + parts)
