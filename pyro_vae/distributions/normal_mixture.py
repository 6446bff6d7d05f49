"""A mixture of diagonal normals with a reparameterized sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.base import Distribution

__all__ = ["NormalMixture"]


class NormalMixture(Distribution):
    r"""A mixture of diagonal normals, with samples that are differentiable with respect to all parameters.

    .. math:: q(z) = \sum_k \pi_k \prod_j \mathcal N(z_j; \mu_{kj}, \sigma_{kj}^2)

    Samples have a gradient with respect to the weights too. With the conditional distribution functions
    :math:`u_j = F(z_j \mid z_{<j})`, a change of a parameter moves the sample so that u is constant,
    :math:`dz / d\phi = -(\partial u / \partial z)^{-1} \, \partial u / \partial \phi`. The Jacobian is triangular and
    has a closed form.

    References:
        Implicit reparameterization gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498

    Args:
        loc: means, shape ``(*batch, components, D)``
        scale: standard deviations, shape ``(*batch, components, D)``
        logits: unnormalized log-weights, shape ``(*batch, components)``

    Shape:
        batch shape ``batch`` and event shape ``(D,)``.

    Example:
        >>> NormalMixture(torch.randn(4, 2), torch.ones(4, 2), torch.zeros(4)).rsample((5,)).shape
        torch.Size([5, 2])
    """

    arg_constraints = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
        "logits": constraints.real_vector,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, logits: Tensor, *, validate_args: bool | None = None) -> None:
        batch = torch.broadcast_shapes(loc.shape[:-2], scale.shape[:-2], logits.shape[:-1])
        self.loc, self.scale = torch.broadcast_tensors(loc.expand(*batch, -1, -1), scale)
        self.logits = logits.expand(*batch, -1)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample a component and an event from it, then attach the gradient of the whole mixture."""
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            which = torch.distributions.Categorical(logits=self.logits, validate_args=False).sample(
                torch.Size(sample_shape)
            )
            index = which[..., None, None].expand(*which.shape, 1, self.event_shape[0])
            both = (p.expand(*sample_shape, *p.shape) for p in (self.loc, self.scale))
            loc, scale = (p.gather(-2, index).squeeze(-2) for p in both)
            z = loc + scale * torch.randn(shape, dtype=loc.dtype, device=loc.device)
        if torch.is_grad_enabled() and any(p.requires_grad for p in (self.loc, self.scale, self.logits)):
            z = z + self._gradient(z)
        return z

    def _gradient(self, z: Tensor) -> Tensor:
        """Return zeros with the gradient of the sample ``z``."""
        x = (z.unsqueeze(-2) - self.loc) / self.scale
        weight = self._weights(x)
        below = torch.special.ndtr(x)
        u = (weight * below).sum(-2)
        with torch.no_grad():
            slope = -x / self.scale
            jacobian = torch.einsum("...kd,...kj->...dj", weight * (below - u.unsqueeze(-2)), slope)
            density = (weight * (-0.5 * x * x).exp() / self.scale).sum(-2) / math.sqrt(2 * math.pi)
            density = density.clamp_min(torch.finfo(z.dtype).tiny)
            # each row divided by its diagonal, the density of z_d given the coordinates before it
            unit = jacobian.tril(-1) / density.unsqueeze(-1)
        right = ((u.detach() - u) / density).unsqueeze(-1)
        return torch.linalg.solve_triangular(unit, right, upper=False, unitriangular=True).squeeze(-1)

    def _weights(self, x: Tensor) -> Tensor:
        """Return the component weights given the coordinates before each one, ``(*batch, components, D)``."""
        log_density = -0.5 * x * x - self.scale.log()
        before = log_density.cumsum(-1) - log_density
        return torch.softmax(self.logits.unsqueeze(-1) + before, -2)

    def _log_prob(self, value: Tensor) -> Tensor:
        normal = dist.Normal(self.loc, self.scale, validate_args=False)
        each = normal.log_prob(value.unsqueeze(-2)).sum(-1)
        return torch.logsumexp(torch.log_softmax(self.logits, -1) + each, -1)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return (torch.softmax(self.logits, -1).unsqueeze(-1) * self.loc).sum(-2)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate."""
        off = self.loc - self.mean.unsqueeze(-2)
        return (torch.softmax(self.logits, -1).unsqueeze(-1) * (self.scale.square() + off.square())).sum(-2)
