"""The von Mises-Fisher distribution in any dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.kl import register_kl
from torch.nn.functional import normalize

from pyro_vae._util.cache import cached_tensors
from pyro_vae.distributions.base import Distribution
from pyro_vae.distributions.bessel import bessel_ratio, log_bessel
from pyro_vae.distributions.sphere import HypersphericalUniform, from_pole, log_area, sphere

__all__ = ["VonMisesFisher"]

#: Proposals per sample. Each is accepted with a probability of at least 0.65, so that all fail once in 10^10 samples.
PROPOSALS = 24


class VonMisesFisher(Distribution):
    r"""The von Mises-Fisher distribution: an isotropic normal distribution restricted to the unit sphere.

    .. math:: p(z) = \frac{\kappa^{v}}{(2 \pi)^{v + 1} I_v(\kappa)} e^{\kappa \mu^\top z}, \qquad v = \tfrac{n}{2} - 1

    The angle from the mean is sampled by rejection. Its gradient with respect to the concentration is
    :math:`d\theta / d\kappa = -\partial_\kappa F / p(\theta)` with the distribution function F of the angle, a
    one-dimensional integral. It is unbiased; a gradient through the proposals would lack the term of their acceptance.

    References:
        Simulation of the von Mises-Fisher distribution (Wood, 1994);
        Hyperspherical variational auto-encoders (Davidson et al., 2018), https://arxiv.org/abs/1804.00891;
        Implicit reparameterization gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498

    Args:
        loc: mean direction, a unit vector, shape ``(*batch, n)``
        concentration: kappa, shape ``(*batch,)``

    Shape:
        batch shape ``batch`` and event shape ``(n,)``.

    Raises:
        ValueError: ``loc`` has fewer than 2 coordinates.

    Example:
        >>> VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(5.0)).rsample((4,)).shape
        torch.Size([4, 3])
    """

    arg_constraints = {"loc": sphere, "concentration": constraints.positive}
    support = sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, *, validate_args: bool | None = None) -> None:
        if loc.shape[-1] < 2:
            raise ValueError(f"loc: expected at least 2 coordinates, got {loc.shape[-1]}")
        batch = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc, self.concentration = loc.expand(*batch, -1), concentration.expand(batch)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    @property
    def order(self) -> float:
        """The order v of the Bessel function."""
        return self.event_shape[0] / 2 - 1

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample an angle from the mean by rejection and a uniform direction around it, with a gradient."""
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            angle = sample_angle(self.concentration.expand(shape[:-1]), shape[-1])
        if torch.is_grad_enabled() and self.concentration.requires_grad:
            kappa = self.concentration.expand(shape[:-1])
            with torch.no_grad():
                slope = angle_slope(angle, kappa, shape[-1])
            angle = angle + slope * (kappa - kappa.detach())
        around = normalize(self.loc.new_empty(*shape[:-1], shape[-1] - 1).normal_(), dim=-1)
        return from_pole(angle.cos(), angle.sin(), around, self.loc)

    def _log_prob(self, value: Tensor) -> Tensor:
        # kappa (cosine - 1) without the rounding of the cosine, which matters at a large kappa
        return self.log_peak - self.concentration * (value - self.loc).square().sum(-1) / 2

    @property
    def log_peak(self) -> Tensor:
        """The log-density at the mean direction."""
        return self._log_peak().to(self.concentration.dtype)

    def _log_peak(self) -> Tensor:
        return -(self.order + 1) * math.log(2 * math.pi) - log_bessel(self.order, self.concentration)

    @property
    def mean(self) -> Tensor:
        """The mean, a point inside the sphere."""
        ratio = bessel_ratio(self.order, self.concentration).to(self.loc.dtype)
        return self.loc * ratio.unsqueeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy of the density per surface area."""
        ratio = bessel_ratio(self.order, self.concentration)
        return (self.concentration.double() * (1 - ratio) - self._log_peak()).to(self.concentration.dtype)


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_von_mises_fisher_uniform(p: VonMisesFisher, q: HypersphericalUniform) -> Tensor:
    return log_area(p.event_shape[0]) - p.entropy()


def sample_angle(kappa: Tensor, n: int) -> Tensor:
    """Sample angles from the mean direction, of the shape of ``kappa``, by rejection from Wood's envelope."""
    m = n - 1
    root = torch.sqrt(4 * kappa * kappa + m * m)
    b = m / (2 * kappa + root)
    a = (m + 2 * kappa + root) / 4
    half = torch.full((PROPOSALS, *kappa.shape), m / 2, dtype=kappa.dtype, device=kappa.device)
    share = torch.distributions.Beta(half, half, validate_args=False).sample()
    t = 2 * a * b / (1 - (1 - b) * share)
    fit = m * t.log() - t + 4 * a * b / (1 + b) - m * math.log(m)
    good = fit >= torch.rand_like(share).log()
    # 1 - cosine, without a subtraction
    depth = 2 * b * share / (1 - (1 - b) * share)
    chosen = depth.gather(0, good.to(torch.uint8).argmax(0, keepdim=True)).squeeze(0)
    tiny = torch.finfo(kappa.dtype).tiny
    return 2 * torch.asin(torch.sqrt((chosen / 2).clamp(tiny, 1.0)))


@cached_tensors
def nodes(device: torch.device) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    x, w = (torch.as_tensor(v, device=device) for v in np.polynomial.legendre.leggauss(64))
    return (x + 1) / 2, w / 2


def angle_slope(angle: Tensor, kappa: Tensor, n: int) -> Tensor:
    r"""Return :math:`d\theta / d\kappa` at a fixed value of the distribution function.

    The density of the angle is :math:`p(\theta) \propto \sin^{n-2} \theta \, e^{\kappa \cos \theta}`, and its
    derivative with respect to kappa is :math:`p(\theta) (\cos \theta - A)` with the mean cosine A. As the integral
    of the derivative is 0, only the side on which the density falls off is integrated, up to where it is negligible.
    """
    theta, k = angle.double().unsqueeze(-1), kappa.double().unsqueeze(-1)
    m = n - 2
    mode = torch.acos((2 * k / (m + torch.sqrt(m * m + 4 * k * k))).clamp(max=1.0))
    reach = 14 / torch.sqrt(k + m)
    below = theta <= mode
    end = torch.where(below, (theta - reach).clamp_min(0.0), (theta + reach).clamp_max(math.pi))
    x, w = nodes(theta.device)
    other = theta + (end - theta) * x
    # rounding may make sin negative at pi
    log_ratio = m * ((other.sin().clamp_min(1e-300)) / theta.sin()).log() if m else torch.zeros_like(other)
    exponent = log_ratio - 2 * k * torch.sin((other + theta) / 2) * torch.sin((other - theta) / 2)
    inner = exponent.exp() * (other.cos() - bessel_ratio(n / 2 - 1, k))
    # from the end to theta if the end is below, else minus the integral from theta to the end: the same sign
    integral = (inner * w).sum(-1) * (theta - end).squeeze(-1)
    return -integral.to(angle.dtype)
