"""The power spherical distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl
from torch.nn.functional import normalize

from pyro_vae.distributions.base import Distribution
from pyro_vae.distributions.special import digamma_difference, log_gamma_ratio
from pyro_vae.distributions.sphere import HypersphericalUniform, from_pole, log_area, sphere

__all__ = ["PowerSpherical"]


class PowerSpherical(Distribution):
    r"""The power spherical distribution: a peak on the unit sphere, sampled without rejection.

    .. math:: p(z) = \frac{\Gamma(\alpha + \beta)}{2^{\alpha + \beta} \pi^\beta \Gamma(\alpha)}
              (1 + \mu^\top z)^\kappa, \qquad \beta = \tfrac{n - 1}{2}, \quad \alpha = \beta + \kappa

    References:
        The power spherical distribution (De Cao and Aziz, 2020), https://arxiv.org/abs/2006.04437

    Args:
        loc: mean direction, a unit vector, shape ``(*batch, n)``
        concentration: kappa, shape ``(*batch,)``; 0 for the uniform distribution

    Shape:
        batch shape ``batch`` and event shape ``(n,)``.

    Raises:
        ValueError: ``loc`` has fewer than 2 coordinates.

    Example:
        >>> PowerSpherical(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(5.0)).rsample((4,)).shape
        torch.Size([4, 3])
    """

    arg_constraints = {"loc": sphere, "concentration": constraints.nonnegative}
    support = sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, *, validate_args: bool | None = None) -> None:
        if loc.shape[-1] < 2:
            raise ValueError(f"loc: expected at least 2 coordinates, got {loc.shape[-1]}")
        batch = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc, self.concentration = loc.expand(*batch, -1), concentration.expand(batch)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    @property
    def beta(self) -> float:
        """Half the dimension of the sphere."""
        return (self.event_shape[0] - 1) / 2

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample a beta distributed angle from the mean and a uniform direction around it, with a gradient."""
        shape = self._extended_shape(sample_shape)
        # float64: torch's gradient is not finite in float32 for concentrations of 1e9
        kappa = self.concentration.double()
        both = torch.stack([self.beta + kappa, torch.full_like(kappa, self.beta)], -1)
        # both shares of the beta, as 1 - share would round a small share to 0
        shares = torch.distributions.Dirichlet(both, validate_args=False).rsample(torch.Size(sample_shape))
        near, far = shares.clamp_min(torch.finfo(torch.float32).tiny).unbind(-1)
        cosine, sine = (v.to(self.loc.dtype) for v in (near - far, 2 * near.sqrt() * far.sqrt()))
        around = normalize(self.loc.new_empty(*shape[:-1], shape[-1] - 1).normal_(), dim=-1)
        return from_pole(cosine, sine, around, self.loc)

    def _log_prob(self, value: Tensor) -> Tensor:
        # log((1 + cosine)/2), accurate at both poles
        far = (value - self.loc).square().sum(-1) / 4
        near = (value + self.loc).square().sum(-1) / 4
        close = far < 0.5
        tiny = torch.finfo(value.dtype).tiny
        log_share = torch.where(
            close, torch.log1p(-torch.where(close, far, 0 * far)), torch.where(close, 1 + 0 * near, near + tiny).log()
        )
        return self.concentration * log_share + self.log_normalizer

    @property
    def log_normalizer(self) -> Tensor:
        r"""The constant of the log-density, for the base :math:`(1 + \mu^\top z)/2`."""
        ratio = log_gamma_ratio(self.beta + self.concentration, self.beta)
        return ratio - self.beta * math.log(4 * math.pi)

    @property
    def mean(self) -> Tensor:
        """The mean, a point inside the sphere."""
        return self.loc * (self.concentration / (2 * self.beta + self.concentration)).unsqueeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy of the density per surface area."""
        down = digamma_difference(self.beta + self.concentration, self.beta)
        return self.concentration * down - self.log_normalizer


@register_kl(PowerSpherical, HypersphericalUniform)
def _kl_power_spherical_uniform(p: PowerSpherical, q: HypersphericalUniform) -> Tensor:
    return log_area(p.event_shape[0]) - p.entropy()
