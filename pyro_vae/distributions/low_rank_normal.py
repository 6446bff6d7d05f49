"""The normal with a low-rank plus diagonal covariance, and KL divergences from correlated to independent normals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, constraints
from torch.distributions.kl import register_kl

from pyro_vae.distributions.base import Distribution

__all__ = ["LowRankNormal"]


class LowRankNormal(Distribution):
    r"""A normal array with entries that are correlated through a few factors.

    .. math:: p(x) = \mathcal N(\operatorname{vec} x; \operatorname{vec} \mu, W W^\top + \operatorname{diag} \sigma^2)

    The quadratic form is computed as the minimum over u of
    :math:`\lvert (x - \mu - W u) / \sigma \rvert^2 + \lvert u \rvert^2`, a sum without cancellation, instead of the
    usual difference of two large terms.

    Args:
        loc: :math:`\mu`, of shape ``(*batch, *event)``
        factor: W, of shape ``(*batch, rank, *event)``
        scale: :math:`\sigma`, of shape ``(*batch, *event)`` or one that broadcasts to it
        event_dim: number of event dimensions

    Example:
        >>> fn = LowRankNormal(torch.zeros(5, 2, 2), torch.ones(5, 1, 2, 2), torch.tensor(1.0), 2)
        >>> fn.batch_shape, fn.event_shape, fn.variance[0, 0]
        (torch.Size([5]), torch.Size([2, 2]), tensor([2., 2.]))
    """

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

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> LowRankNormal:
        """Return the distribution expanded to ``batch_shape``."""
        new = super().expand(batch_shape)
        shape = (*batch_shape, *self.event_shape)
        new.loc, new.scale = self.loc.expand(shape), self.scale.expand(shape)
        rank = self.factor.shape[-1 - len(self.event_shape)]
        new.factor = self.factor.expand(*batch_shape, rank, *self.event_shape)
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
        """Sample factors and noise, with a gradient."""
        shape = self._extended_shape(sample_shape)
        axis = -1 - len(self.event_shape)
        lead = self.batch_shape + self.factor.shape[axis : axis + 1]
        u = torch.randn(
            *sample_shape, *lead, *([1] * len(self.event_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.factor * u).sum(axis) + self.scale * noise

    def _log_prob(self, value: Tensor) -> Tensor:
        cut = len(self.batch_shape)
        scale = self.scale.flatten(cut)
        y = value - self.loc
        y = y.flatten(y.dim() - len(self.event_shape)) / scale
        w = self.factor.flatten(cut + 1) / scale.unsqueeze(-2)
        eye = torch.eye(w.shape[-2], dtype=w.dtype, device=w.device)
        root = torch.linalg.cholesky_ex(eye + w @ w.mT)[0]  # it always exists: no need to wait for an error flag
        u = torch.cholesky_solve((w @ y.unsqueeze(-1)), root)
        rest = y - (w.mT @ u).squeeze(-1)
        quadratic = (rest**2).sum(-1) + (u**2).sum((-2, -1))
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 2 * scale.log().sum(-1)
        return -0.5 * (quadratic + log_det + y.shape[-1] * math.log(2 * math.pi))


# Pyro registers these divergences in the other direction only: a full-rank posterior under a standard normal prior
# would need samples.
@register_kl(MultivariateNormal, Independent)
def kl_full_rank_independent(p: MultivariateNormal, q: Independent) -> Tensor:
    """Return the KL divergence from a full-rank normal to independent normals."""
    base = independent_normal(q)
    factor = p.scale_tril / base.scale.unsqueeze(-1)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return distance(p.loc, base) + 0.5 * factor.square().sum((-1, -2)) - log_det


@register_kl(LowRankNormal, Independent)
def kl_low_rank_independent(p: LowRankNormal, q: Independent) -> Tensor:
    """Return the KL divergence from a low-rank normal over vectors to independent normals."""
    base = independent_normal(q)
    if len(p.event_shape) != 1:
        raise NotImplementedError
    w, s = p.factor / base.scale.unsqueeze(-2), p.scale / base.scale
    # the matrix determinant lemma
    inner = p.factor / p.scale.unsqueeze(-2)
    eye = torch.eye(inner.shape[-2], dtype=inner.dtype, device=inner.device)
    log_det = s.log().sum(-1) + 0.5 * torch.linalg.slogdet(eye + inner @ inner.mT)[1]
    return distance(p.loc, base) + 0.5 * (w.square().sum((-1, -2)) + s.square().sum(-1)) - log_det


def independent_normal(q: Independent) -> Normal:
    """Return the normal inside an ``Independent``, or raise ``NotImplementedError``."""
    if not isinstance(q.base_dist, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    return q.base_dist


def distance(loc: Tensor, base: Normal) -> Tensor:
    """Return half the squared distance of the means, minus half the number of dimensions."""
    return 0.5 * (((loc - base.loc) / base.scale).square() - 1).sum(-1)
