"""The power spherical distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl
from torch.nn.functional import normalize

from pyro_vae.distributions.direction import from_pole
from pyro_vae.distributions.gamma_ratio import digamma_difference, log_gamma_ratio
from pyro_vae.distributions.hyperspherical_uniform import HypersphericalUniform
from pyro_vae.distributions.sphere import log_area, sphere

__all__ = ["PowerSpherical"]


class PowerSpherical(dist.TorchDistribution):
    r"""The power spherical distribution: a peak on the unit sphere with a sampler that rejects nothing.

    .. math:: p(z) = \frac{\Gamma(\alpha + \beta)}{2^{\alpha + \beta} \pi^\beta \Gamma(\alpha)}
              (1 + \mu^\top z)^\kappa, \qquad \beta = \tfrac{n - 1}{2}, \quad \alpha = \beta + \kappa

    References:
        The power spherical distribution (De Cao and Aziz, 2020), https://arxiv.org/abs/2006.04437

    Args:
        loc: mean direction, a unit vector, shape ``(*batch, n)``
        concentration: kappa, shape ``(*batch,)``; 0 is the uniform distribution

    Shape:
        batch shape ``batch`` and event shape ``(n,)``.

    Raises:
        ValueError: n is below 2.

    Example:
        >>> PowerSpherical(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(5.0)).rsample((4,)).shape
        torch.Size([4, 3])
    """

    arg_constraints = {"loc": sphere, "concentration": constraints.nonnegative}
    support = sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, *, validate_args: bool | None = None) -> None:
        if loc.shape[-1] < 2:
            raise ValueError(f"loc: a sphere in R^n with n of at least 2 is needed, got n = {loc.shape[-1]}")
        batch = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc, self.concentration = loc.expand(*batch, -1), concentration.expand(batch)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: PowerSpherical | None = None) -> PowerSpherical:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(PowerSpherical, _instance)
        new.loc = self.loc.expand(*batch_shape, -1)
        new.concentration = self.concentration.expand(batch_shape)
        super(PowerSpherical, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def beta(self) -> float:
        """Half the dimension of the sphere."""
        return (self.event_shape[0] - 1) / 2

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw: an angle by way of a beta, the rest uniform."""
        shape = self._extended_shape(sample_shape)
        # in float64: the gradient of torch is not finite in float32 for concentrations of 1e9
        kappa = self.concentration.double()
        both = torch.stack([self.beta + kappa, torch.full_like(kappa, self.beta)], -1)
        # both shares of the beta: 1 - share would lose what is small
        shares = torch.distributions.Dirichlet(both, validate_args=False).rsample(torch.Size(sample_shape))
        near, far = shares.clamp_min(torch.finfo(torch.float32).tiny).unbind(-1)
        cosine, sine = (v.to(self.loc.dtype) for v in (near - far, 2 * near.sqrt() * far.sqrt()))
        around = normalize(self.loc.new_empty(*shape[:-1], shape[-1] - 1).normal_(), dim=-1)
        return from_pole(cosine, sine, around, self.loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value`` of length 1, by surface area."""
        if self._validate_args:
            self._validate_sample(value)
        # log((1 + cosine)/2), to full accuracy at both poles
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
        r"""The log-density's constant, for the base :math:`(1 + \mu^\top z)/2`."""
        ratio = log_gamma_ratio(self.beta + self.concentration, self.beta)
        return ratio - self.beta * math.log(4 * math.pi)

    @property
    def mean(self) -> Tensor:
        """The mean, inside the sphere."""
        return self.loc * (self.concentration / (2 * self.beta + self.concentration)).unsqueeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy, by surface area."""
        down = digamma_difference(self.beta + self.concentration, self.beta)
        return self.concentration * down - self.log_normalizer


@register_kl(PowerSpherical, HypersphericalUniform)
def _kl_power_spherical_uniform(p: PowerSpherical, q: HypersphericalUniform) -> Tensor:
    return log_area(p.event_shape[0]) - p.entropy()
