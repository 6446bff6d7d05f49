"""The logistic-normal distribution on the simplex."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints, register_kl

from pyro_vae.distributions.base import Distribution

__all__ = ["LogisticNormal"]


class LogisticNormal(Distribution):
    r"""The softmax of independent normals, as a density on the simplex.

    .. math:: z = \operatorname{softmax}(h), \quad h_i \sim \mathcal N(\mu_i, \sigma_i^2), \qquad
              p(z) = \prod_i \frac{1}{z_i} \int \prod_i \mathcal N(\log z_i + c; \mu_i, \sigma_i^2)\, dc

    The softmax does not depend on a common shift c of h, which is integrated out in closed form. With
    :math:`a_i = \log z_i - \mu_i`, weights :math:`w_i = \sigma_i^{-2}`, their sum W and the weighted mean
    :math:`\bar a`,

    .. math:: \log p(z) = -\sum_i \log z_i - \tfrac12 \sum_i w_i (a_i - \bar a)^2
              - \sum_i \log \sigma_i - \tfrac{K-1}{2} \log 2 \pi - \tfrac12 \log W.

    As for the Dirichlet, this is the density of the first K - 1 coordinates. It is symmetric in the coordinates,
    unlike stick breaking, which subtracts from 1 and loses all digits near a corner. The KL divergence between two
    logistic-normal distributions is registered in closed form.

    Args:
        loc: mean :math:`\mu` of the normals, ``(*batch, K)``
        scale: standard deviation :math:`\sigma`, ``(*batch, K)``

    References:
        Logistic-normal distributions: some properties and uses (Atchison and Shen, 1980),
        https://doi.org/10.1093/biomet/67.2.261

    Example:
        >>> LogisticNormal(torch.zeros(3), torch.ones(3)).sample((5,)).shape
        torch.Size([5, 3])
    """

    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample with a gradient."""
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        z = torch.softmax(self.loc + self.scale * noise, -1)
        # an entry may underflow to 0, where the density is undefined
        return z.clamp(min=torch.finfo(z.dtype).tiny)

    def _log_prob(self, value: Tensor) -> Tensor:
        log_z = value.clamp(min=torch.finfo(value.dtype).tiny).log()
        constant = -0.5 * (value.shape[-1] - 1) * math.log(2 * math.pi)
        return constant - log_z.sum(-1) - 0.5 * (self.spread(log_z - self.loc) + self.log_volume)

    def spread(self, a: Tensor) -> Tensor:
        r"""Return :math:`\sum_i w_i (a_i - \bar a)^2`."""
        # weights relative to the smallest scale: 1/scale^2 alone would overflow
        share = torch.softmax(-2 * self.scale.log(), -1)
        return ((a - (share * a).sum(-1, True)) / self.scale).square().sum(-1)

    @property
    def log_volume(self) -> Tensor:
        """Twice the log-volume of the normal after the shift is integrated out."""
        log_scale = self.scale.log()
        return 2 * log_scale.sum(-1) + torch.logsumexp(-2 * log_scale, -1)


@register_kl(LogisticNormal, LogisticNormal)
def kl_logistic_normal(q: LogisticNormal, p: LogisticNormal) -> Tensor:
    """Return the KL divergence of the two normals with the common shift integrated out."""
    share = torch.softmax(-2 * p.scale.log(), -1)
    trace = ((q.scale / p.scale).square() * (1 - share)).sum(-1)
    size = q.loc.shape[-1]
    return 0.5 * (trace + p.spread(q.loc - p.loc) - (size - 1) + p.log_volume - q.log_volume)
