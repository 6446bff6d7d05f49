"""The normal with a covariance of low rank plus diagonal, over arrays."""

from __future__ import annotations

import math

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

__all__ = ["LowRankNormal"]


class LowRankNormal(dist.TorchDistribution):
    r"""A normal array whose entries are correlated through a few factors.

    .. math:: p(x) = \mathcal N(\operatorname{vec} x; \operatorname{vec} \mu, W W^\top + \operatorname{diag} \sigma^2)

    The quadratic form is computed as the minimum over u of
    :math:`\lvert (x - \mu - W u) / \sigma \rvert^2 + \lvert u \rvert^2`, in which the large parts never cancel,
    unlike in the usual difference of two of them.

    Args:
        loc: :math:`\mu`, of shape ``(*batch, *event)``
        factor: W, of shape ``(*batch, rank, *event)``
        scale: :math:`\sigma`, of shape ``(*batch, *event)`` or one that broadcasts to it
        event_dim: number of dimensions of an event

    Example:
        >>> fn = LowRankNormal(torch.zeros(5, 2, 2), torch.ones(5, 1, 2, 2), torch.tensor(1.0), 2)
        >>> fn.batch_shape, fn.event_shape, fn.variance[0, 0]
        (torch.Size([5]), torch.Size([2, 2]), tensor([2., 2.]))
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(
        self, loc: Tensor, factor: Tensor, scale: Tensor, event_dim: int = 1, *, validate_args: bool | None = None
    ) -> None:
        cut = loc.dim() - event_dim
        self.loc, self.scale, self.factor = loc, scale.expand(loc.shape), factor
        super().__init__(loc.shape[:cut], loc.shape[cut:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """Real arrays."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: LowRankNormal | None = None) -> LowRankNormal:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(LowRankNormal, _instance)
        shape = (*batch_shape, *self.event_shape)
        new.loc, new.scale = self.loc.expand(shape), self.scale.expand(shape)
        rank = self.factor.shape[-1 - len(self.event_shape)]
        new.factor = self.factor.expand(*batch_shape, rank, *self.event_shape)
        super(LowRankNormal, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        r"""The mean :math:`\mu`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance of each entry."""
        return self.scale**2 + (self.factor**2).sum(-1 - len(self.event_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw factors and noise."""
        shape = self._extended_shape(sample_shape)
        axis = -1 - len(self.event_shape)
        lead = self.batch_shape + self.factor.shape[axis : axis + 1]
        u = torch.randn(
            *sample_shape, *lead, *([1] * len(self.event_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.factor * u).sum(axis) + self.scale * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        cut = len(self.batch_shape)
        scale = self.scale.flatten(cut)
        y = value - self.loc
        y = y.flatten(y.dim() - len(self.event_shape)) / scale
        w = self.factor.flatten(cut + 1) / scale.unsqueeze(-2)
        eye = torch.eye(w.shape[-2], dtype=w.dtype, device=w.device)
        root = torch.linalg.cholesky_ex(eye + w @ w.mT)[0]  # it is there: nobody has to wait to know
        u = torch.cholesky_solve((w @ y.unsqueeze(-1)), root)
        rest = y - (w.mT @ u).squeeze(-1)
        quadratic = (rest**2).sum(-1) + (u**2).sum((-2, -1))
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 2 * scale.log().sum(-1)
        return -0.5 * (quadratic + log_det + y.shape[-1] * math.log(2 * math.pi))
