"""The flow-matching prior."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.distributions.flow import Layer
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.priors.flow_prior import FlowPrior

__all__ = ["FlowMatching"]

#: Steps of the fixed-point iteration that inverts a step of the integrator, after an explicit first guess.
NUM_CORRECTIONS = 3


class FlowMatching(FlowPrior):
    r"""A continuous normalizing flow: a standard normal moved along a learned velocity field.

    .. math:: \frac{dz_t}{dt} = v(z_t, t), \qquad z_0 = u \sim \mathcal N(0, I), \qquad
              \log p(z_1) = \log \mathcal N(z_0; 0, I) - \int_0^1 \operatorname{tr} \frac{\partial v}{\partial z_t} dt

    ``num_steps`` steps of the classical Runge-Kutta method lead from z back to u. The density is that of these steps:
    their exact Jacobians replace the integral of the trace, to which they converge. Without an error of integration
    the density has mass one, provided that the steps are short enough to be invertible, and every estimator may use
    it. A density takes ``4 * num_steps`` passes with ``latent`` directional derivatives each, which is slow for many
    latents.

    ``regression_loss`` is the much faster objective of flow matching for samples of z. It is no bound on their
    density. :class:`pyro_vae.tasks.AggregatePosterior` fits this prior by it; inside a VAE the density is used.

    References:
        Flow matching for generative modeling (Lipman et al., 2023), https://arxiv.org/abs/2210.02747;
        Neural ordinary differential equations (Chen et al., 2018), https://arxiv.org/abs/1806.07366

    Args:
        latent: number of latents
        num_steps: number of Runge-Kutta steps
        net: builds the velocity field, ``net((latent + 1,), (latent,))``, whose last input is the time t in [0, 1]
        context: width of the context (labels, covariates)

    Raises:
        ValueError: ``num_steps`` is below 1.

    Example:
        >>> FlowMatching(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int, *, num_steps: int = 8, net: NetBuilder = MLP, context: int = 0) -> None:
        check_int("num_steps", num_steps)
        super().__init__(latent, lambda: OdeLayer(latent, net, context, num_steps), layers=1, context=context)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> FlowMatching:
        """Build a small instance."""
        return super().example(latent=latent, shape=shape, **{"num_steps": 2, **options})

    def regression_loss(self, z: Tensor, *context: Tensor) -> Tensor:
        r"""Return the error of the velocity on straight paths from noise to samples, an estimate of one draw.

        .. math:: \mathbb E_{t \sim U(0, 1),\, u \sim \mathcal N(0, I)} \lVert v((1 - t) u + t z, t) - (z - u) \rVert^2

        Args:
            z: samples of the latents, of shape ``(*batch, latent)``
            context: context of each sample, if the prior was built with it

        Returns:
            The squared error of each sample, of shape ``(*batch,)``.
        """
        u, t = torch.randn_like(z), torch.rand_like(z[..., :1])
        context = context if self.context else ()
        layer = cast(OdeLayer, self.layers[0])
        return (layer.velocity(u + t * (z - u), t, context) - (z - u)).square().sum(-1)


class OdeLayer(Layer):
    """Runge-Kutta steps along a velocity field, from z at time 1 to u at time 0."""

    def __init__(self, latent: int, net: NetBuilder, context: int, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.net = build(net, (latent + 1,), (latent,), context)

    def velocity(self, z: Tensor, t: Tensor | float, context: tuple[Tensor, ...]) -> Tensor:
        """Return the velocity at z and time t."""
        return self.net(torch.cat([z, torch.zeros_like(z[..., :1]) + t], -1), *context)

    def step(self, z: Tensor, start: float, end: float, context: tuple[Tensor, ...]) -> Tensor:
        """Return the point at time ``end`` of the path through ``z`` at time ``start``."""
        size, middle = end - start, (start + end) / 2
        first = self.velocity(z, start, context)
        second = self.velocity(z + size / 2 * first, middle, context)
        third = self.velocity(z + size / 2 * second, middle, context)
        fourth = self.velocity(z + size * third, end, context)
        return z + size / 6 * (first + 2 * (second + third) + fourth)

    def times(self) -> list[tuple[float, float]]:
        """Return start and end of each step from noise to latents."""
        return [(k / self.num_steps, (k + 1) / self.num_steps) for k in range(self.num_steps)]

    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and the log-determinant."""
        eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        total = z.new_zeros(())
        for start, end in reversed(self.times()):

            def pushed(direction: Tensor, z: Tensor = z, start: float = start, end: float = end) -> Any:
                return torch.func.jvp(lambda z: self.step(z, end, start, context), (z,), (direction.expand_as(z),))

            z, columns = torch.func.vmap(pushed, out_dims=cast(Any, (None, 0)))(eye)
            total = total + torch.linalg.slogdet(columns.movedim(0, -1))[1]
        return z, total

    def inverse(self, u: Tensor, *context: Tensor) -> Tensor:
        """Return z."""
        for start, end in self.times():
            z = self.step(u, start, end, context)
            for _ in range(NUM_CORRECTIONS):
                z = z + u - self.step(z, end, start, context)
            u = z
        return u
