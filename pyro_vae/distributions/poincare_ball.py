"""The Poincaré ball: hyperbolic space as the inside of the unit ball, and a normal distribution on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints

from pyro_vae.distributions.base import Distribution

__all__ = ["Radial", "WrappedNormal", "ball", "mobius_add"]


class _Ball(constraints.Constraint):
    event_dim = 1

    def __repr__(self) -> str:
        return "vectors shorter than 1"

    def check(self, value: Tensor) -> Tensor:
        return value.square().sum(-1) < 1


ball = _Ball()


class Radial(Transform):
    r"""The map of all vectors onto the ball that keeps directions, the exponential map at the origin.

    .. math:: f(t) = \tanh(\lVert t \rVert / 2) \, t / \lVert t \rVert

    The length of t is the hyperbolic distance of f(t) from the origin. Points at a distance above 14 in float32, and
    above 28 in float64, are moved to that distance.

    Example:
        >>> Radial()(torch.tensor([3.0, 4.0]))
        tensor([0.5920, 0.7893])
    """

    domain, codomain = constraints.real_vector, ball
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Radial)

    __hash__ = None  # type: ignore[assignment]

    def _call(self, x: Tensor) -> Tensor:
        far = length(x)
        return x * ((far.clamp_max(farthest(x.dtype)) / 2).tanh() / far)

    def _inverse(self, y: Tensor) -> Tensor:
        near = length(y).clamp_max(1 - 1e-15 if y.dtype == torch.float64 else 1 - 1e-7)
        return y * (2 * near.atanh() / near)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the log of the factor by which volumes grow, of shape ``(*batch,)``."""
        far = length(x)[..., 0]
        tangential = ((far / 2).tanh() / far).log() * (x.shape[-1] - 1)
        # 1 - tanh^2(d/2) = sech^2(d/2)
        return tangential + math.log(2) - far - 2 * torch.log1p((-far).exp())


def farthest(dtype: torch.dtype) -> float:
    """Return the largest distance from the origin of a point that does not round to the edge of the ball."""
    return 28.0 if dtype == torch.float64 else 14.0


def length(x: Tensor) -> Tensor:
    """Return the length of vectors, ``(*batch, 1)``, with a finite gradient at 0."""
    return (x.square().sum(-1, keepdim=True) + torch.finfo(x.dtype).tiny).sqrt()


def mobius_add(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the point y after the isometry of the ball that moves the origin to x.

    .. math:: x \oplus y = \frac{(1 + 2 x^\top y + \lVert y \rVert^2) x + (1 - \lVert x \rVert^2) y}
              {1 + 2 x^\top y + \lVert x \rVert^2 \lVert y \rVert^2}

    Example:
        >>> mobius_add(torch.tensor([0.5]), torch.tensor([-0.5]))
        tensor([0.])
    """
    # in terms of x + y, as the sums of products nearly cancel for points close to each other and to the edge
    both = x + y
    apart, xx, yy = (a.square().sum(-1, keepdim=True) for a in (both, x, y))
    return (apart * x + (1 - xx) * both) / (apart + (1 - xx) * (1 - yy))


class WrappedNormal(Distribution):
    r"""A normal in the tangent space of a point, wrapped onto the Poincaré ball (hyperbolic space).

    .. math:: z = \mu \oplus \tanh(\lVert t \rVert / 2) \frac{t}{\lVert t \rVert}, \qquad
              t \sim \mathcal N(0, \operatorname{diag} \sigma^2)

    :math:`\lVert t \rVert` is the hyperbolic distance of z from :math:`\mu`, :math:`\oplus` the addition of Möbius.
    The density is with respect to the coordinates of z, so that it integrates to one over the ball:

    .. math:: \log p(z) = \log \mathcal N(t; 0, \operatorname{diag} \sigma^2)
              + (n - 1) \log \frac{\lVert t \rVert}{\sinh \lVert t \rVert} + n \log \frac{2}{1 - \lVert z \rVert^2}

    The curvature is -1. Another one is the same as another scale: with curvature -c, a scale of
    :math:`\sigma / \sqrt c` gives the same points on a ball of radius :math:`1 / \sqrt c`. Computed in float64, as
    points near the edge of the ball lose their digits otherwise. The coordinates themselves have few digits there: in
    float32 the density of samples is exact to about 0.1 nats up to a distance of 10 from the origin, for a scale above
    0.01, and samples beyond 14 are moved to 14. Use a float64 program for latents that lie farther out.

    References:
        A wrapped normal distribution on hyperbolic space for gradient-based learning (Nagano et al., 2019),
        https://arxiv.org/abs/1902.02992;
        Continuous hierarchical representations with Poincaré variational auto-encoders (Mathieu et al., 2019),
        https://arxiv.org/abs/1901.06033

    Args:
        loc: the centre :math:`\mu`, a point of the ball, shape ``(*batch, n)``
        scale: standard deviations :math:`\sigma` of the tangent vector, shape ``(*batch, n)``

    Shape:
        batch shape ``batch`` and event shape ``(n,)``.

    Example:
        >>> WrappedNormal(torch.tensor([0.5, 0.0]), torch.ones(2)).rsample((4,)).shape
        torch.Size([4, 2])
    """

    arg_constraints = {"loc": ball, "scale": constraints.independent(constraints.positive, 1)}
    support = ball
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample with a gradient."""
        noise = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        z = mobius_add(self.loc.double(), Radial()((self.scale * noise).double()))
        # a point far from the centre, beyond the centre seen from the origin, may round to the edge
        far = length(z)
        most = math.tanh(farthest(self.loc.dtype) / 2)
        return (z * (far.clamp_max(most) / far)).to(self.loc.dtype)

    def _log_prob(self, value: Tensor) -> Tensor:
        z, scale = value.double(), self.scale.double()
        t = Radial().inv(mobius_add(-self.loc.double(), z))
        far = length(t)[..., 0]
        n = value.shape[-1]
        close = far < 1e-4
        apart = torch.where(close, torch.ones_like(far), far)
        log_sinh = apart + torch.log1p(-(-2 * apart).exp()) - math.log(2)
        spread = torch.where(close, -far.square() / 6, apart.log() - log_sinh)
        normal = -0.5 * (t / scale).square().sum(-1) - scale.log().sum(-1) - 0.5 * n * math.log(2 * math.pi)
        metric = n * (math.log(2) - torch.log1p(-z.square().sum(-1)))
        return (normal + (n - 1) * spread + metric).to(value.dtype)


@biject_to.register(_Ball)
def _onto_ball(constraint: constraints.Constraint) -> Radial:
    return Radial()
