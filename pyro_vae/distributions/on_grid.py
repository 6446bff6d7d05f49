"""Any distribution of codes 0, 1, 2, ... read on a grid."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.supports import Grid

__all__ = ["OnGrid"]


class OnGrid(dist.TorchDistribution):
    r"""A distribution of codes :math:`k = 0, \dots, L - 1`, whose data are :math:`x = k s`.

    Pixels come as :math:`k / 255`, grades as k: one family serves both. Probabilities are those of the codes.

    Args:
        base: distribution of the codes, such as Categorical or Binomial
        levels: L
        step: s
        ordered: whether the codes have an order, and so a mean; if not, ``mean`` returns the most probable one

    Example:
        >>> fn = OnGrid(dist.Categorical(logits=torch.zeros(2, 5)), 5, 0.25)
        >>> fn.mean, fn.sample().dtype
        (tensor([0.5000, 0.5000]), torch.float32)
    """

    arg_constraints = {}

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

    def expand(self, batch_shape: torch.Size, _instance: OnGrid | None = None) -> OnGrid:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(OnGrid, _instance)
        new.base, new.levels = self.base.expand(torch.Size(batch_shape)), self.levels
        new.step, new.ordered = self.step, self.ordered
        super(OnGrid, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The mean, in the units of the data; without an order the most probable value."""
        if not self.ordered:
            return self.base.probs.argmax(-1).to(self.base.probs.dtype) * self.step
        if isinstance(self.base, dist.Categorical):  # whose own mean is not a number, as its codes have no order
            probs = self.base.probs
            return (probs * torch.arange(self.levels, dtype=probs.dtype, device=probs.device)).sum(-1) * self.step
        return self.base.mean * self.step

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw codes and put them on the grid."""
        codes = self.base.sample(sample_shape)
        return (codes if codes.is_floating_point() else codes.to(torch.get_default_dtype())) * self.step

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return self.base.log_prob(torch.round(value / self.step))
