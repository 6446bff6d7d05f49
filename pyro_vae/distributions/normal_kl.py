"""The closed divergence from a normal with a full or low-rank covariance to independent normals.

Pyro has it only the other way round, so that a full-rank posterior under a standard normal prior would be scored by
draws. Importing this module registers it with ``torch.distributions.kl``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.distributions.kl import register_kl

from pyro_vae.distributions.low_rank_normal import LowRankNormal

__all__: list[str] = []


@register_kl(MultivariateNormal, Independent)
def kl_full_rank_independent(p: MultivariateNormal, q: Independent) -> Tensor:
    """Return the divergence of a full-rank normal from independent ones."""
    base = independent_normal(q)
    factor = p.scale_tril / base.scale.unsqueeze(-1)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return distance(p.loc, base) + 0.5 * factor.square().sum((-1, -2)) - log_det


@register_kl(LowRankNormal, Independent)
def kl_low_rank_independent(p: LowRankNormal, q: Independent) -> Tensor:
    """Return the divergence of a low-rank normal over vectors from independent ones."""
    base = independent_normal(q)
    if len(p.event_shape) != 1:
        raise NotImplementedError
    w, s = p.factor / base.scale.unsqueeze(-2), p.scale / base.scale
    # the determinant lemma
    inner = p.factor / p.scale.unsqueeze(-2)
    eye = torch.eye(inner.shape[-2], dtype=inner.dtype, device=inner.device)
    log_det = s.log().sum(-1) + 0.5 * torch.linalg.slogdet(eye + inner @ inner.mT)[1]
    return distance(p.loc, base) + 0.5 * (w.square().sum((-1, -2)) + s.square().sum(-1)) - log_det


def independent_normal(q: Independent) -> Normal:
    """Return the normal below an ``Independent``, or say that there is no closed form."""
    if not isinstance(q.base_dist, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    return q.base_dist


def distance(loc: Tensor, base: Normal) -> Tensor:
    """Return half of the squared distance of the means less the number of dimensions."""
    return 0.5 * (((loc - base.loc) / base.scale).square() - 1).sum(-1)
