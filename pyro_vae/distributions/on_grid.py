"""Distributions of codes 0, 1, 2, ... mapped to equally spaced values."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.base import Distribution
from pyro_vae.distributions.supports import Grid

__all__ = ["OnGrid"]


class OnGrid(Distribution):
    r"""The distribution of :math:`x = k s` for a distribution of codes :math:`k = 0, \dots, L - 1`.

    One family then serves pixels :math:`k / 255` and ordinal data k. Probabilities are those of the codes.

    Args:
        base: distribution of the codes, such as Categorical or Binomial
        levels: L
        step: s
        ordered: whether the codes are ordered; if not, ``mean`` returns the most probable value

    Example:
        >>> fn = OnGrid(dist.Categorical(logits=torch.zeros(2, 5)), 5, 0.25)
        >>> fn.mean, fn.sample().dtype
        (tensor([0.5000, 0.5000]), torch.float32)
    """

    def __init__(
        self,
        base: dist.TorchDistribution,
        levels: int,
        step: float = 1.0,
        *,
        ordered: bool = True,
        validate_args: bool | None = None,
    ) -> None:
        self.base, self.levels, self.step, self.ordered = base, levels, step, ordered
        super().__init__(base.batch_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The grid."""
        return Grid(self.levels, self.step)

    @property
    def mean(self) -> Tensor:
        """The mean in the units of the data, or the most probable value of unordered codes."""
        if not self.ordered:
            return self.base.probs.argmax(-1).to(self.base.probs.dtype) * self.step
        if isinstance(self.base, dist.Categorical):  # torch returns NaN for the mean of a Categorical
            probs = self.base.probs
            return (probs * torch.arange(self.levels, dtype=probs.dtype, device=probs.device)).sum(-1) * self.step
        return self.base.mean * self.step

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Sample codes and map them to the grid."""
        codes = self.base.sample(sample_shape)
        return (codes if codes.is_floating_point() else codes.to(torch.get_default_dtype())) * self.step

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(torch.round(value / self.step))
