"""The logistic-normal distribution on the simplex, symmetric in its coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints, register_kl

__all__ = ["LogisticNormal"]


class LogisticNormal(dist.TorchDistribution):
    r"""The softmax of independent normals, as a density on the simplex.

    .. math:: z = \operatorname{softmax}(h), \quad h_i \sim \mathcal N(\mu_i, \sigma_i^2), \qquad
              p(z) = \prod_i \frac{1}{z_i} \int \prod_i \mathcal N(\log z_i + c; \mu_i, \sigma_i^2)\, dc

    The softmax forgets a common shift c of h, which is integrated out in closed form: with
    :math:`a_i = \log z_i - \mu_i`, weights :math:`w_i = \sigma_i^{-2}`, their sum W and the weighted mean
    :math:`\bar a`,

    .. math:: \log p(z) = -\sum_i \log z_i - \tfrac12 \sum_i w_i (a_i - \bar a)^2
              - \sum_i \log \sigma_i - \tfrac{K-1}{2} \log 2 \pi - \tfrac12 \log W.

    The density is by the first K - 1 coordinates, as that of the Dirichlet. No entry is special, unlike in
    the form by stick breaking, which takes differences from 1 and loses all digits near a corner. The
    divergence between two of them is registered in closed form.

    Args:
        loc: mean :math:`\mu` of the normals, ``(*batch, K)``
        scale: their standard deviation :math:`\sigma`, ``(*batch, K)``

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

    def expand(self, batch_shape: torch.Size, _instance: LogisticNormal | None = None) -> LogisticNormal:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(LogisticNormal, _instance)
        shape = torch.Size(batch_shape) + self.event_shape
        new.loc, new.scale = self.loc.expand(shape), self.scale.expand(shape)
        super(LogisticNormal, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw with a gradient."""
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        z = torch.softmax(self.loc + self.scale * noise, -1)
        # an entry may underflow to 0, where the density has no value
        return z.clamp(min=torch.finfo(z.dtype).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value`` on the simplex, by its first K - 1 coordinates."""
        if self._validate_args:
            self._validate_sample(value)
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
    """Return the divergence, that of the two normals with the common shift integrated out."""
    share = torch.softmax(-2 * p.scale.log(), -1)
    trace = ((q.scale / p.scale).square() * (1 - share)).sum(-1)
    size = q.loc.shape[-1]
    return 0.5 * (trace + p.spread(q.loc - p.loc) - (size - 1) + p.log_volume - q.log_volume)
