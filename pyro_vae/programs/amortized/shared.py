"""The posterior of the latents that all examples share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.poutine.indep_messenger import IndepMessenger
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.nets import NetBuilder, Shape, build
from pyro_vae.programs.amortized.inspection import Latent
from pyro_vae.programs.amortized.supports import fixed_support, to_support

__all__ = ["Point", "Shared"]

#: Name of the site of the unconstrained value of all latents that examples share.
AUXILIARY = "_shared"


class Constant(nn.Module):
    """A network whose output is a parameter."""

    def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.zeros(out_shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return the parameter for each row."""
        return self.output.expand(len(x), *self.output.shape)


class Point(Conditional):
    r"""A point estimate of latents: their maximum a posteriori value, if the latents are those that examples share.

    .. math:: q(z \mid x) = \delta(z - \mathrm{net}(x))

    Of a latent that is positive, say, it is the mode of the density of the latent itself, without a Jacobian.

    References:
        Pyro: deep universal probabilistic programming (Bingham et al., 2019), https://arxiv.org/abs/1810.09538

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (latent,))``

    Example:
        >>> import torch, pyro_vae as pv
        >>> Point((4,), 3, net=pv.nets.MLP)(torch.zeros(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, shape: Shape, latent: int, *, net: NetBuilder) -> None:
        super().__init__(latent=latent)
        self.net = build(net, shape, (latent,))

    def forward(self, x: Tensor) -> dist.Delta:
        """Return the point."""
        return dist.Delta(self.net(x), event_dim=1)


class Shared(nn.Module):
    r"""One posterior of all latents that examples share, over their unconstrained values.

    .. math:: q(w) = q(u) \, |\det \partial w / \partial u|^{-1}, \qquad w = f(u)

    Its site is drawn once, and the site of each latent is a point at its part of f(u), with the Jacobian as density.

    Args:
        latents: the sites
        posterior: builds a posterior of the shelf, whose encoder is a vector of parameters
    """

    def __init__(self, latents: Sequence[Latent], posterior: Callable[..., Conditional]) -> None:
        super().__init__()
        self.names = [latent.name for latent in latents]
        self.frames = [latent.frames for latent in latents]
        self.batches = [latent.fn.batch_shape for latent in latents]
        self.events = [latent.fn.event_dim for latent in latents]
        self.transforms = [to_support(fixed_support(latent.fn)) for latent in latents]
        pairs = zip(latents, self.transforms, strict=True)
        self.inner = [torch.Size(transform.inverse_shape(latent.fn.event_shape)) for latent, transform in pairs]
        self.sizes = [(b + i).numel() for b, i in zip(self.batches, self.inner, strict=True)]
        self.scale = latents[0].scale
        self.posterior = posterior((1,), sum(self.sizes), net=Constant)

    def forward(self) -> dict[str, Tensor]:
        """Sample the latents and return their values by name."""
        with poutine.scale(scale=self.scale):
            return self.sample()

    def sample(self) -> dict[str, Tensor]:
        """Sample the latents under the handlers around."""
        q = self.posterior(next(self.posterior.parameters()).new_zeros(1))
        u = pyro.sample(AUXILIARY, q, infer={"is_auxiliary": True})
        values, parts = {}, u.split(self.sizes, -1)
        for i, name in enumerate(self.names):
            with ExitStack() as plates:
                for frame in self.frames[i]:
                    plates.enter_context(IndepMessenger(frame.name, frame.size, frame.dim))
                values[name] = pyro.sample(name, self.point(i, parts[i], isinstance(q, dist.Delta)))
        return values

    def point(self, i: int, part: Tensor, modes: bool) -> Any:
        """Return the distribution of a site at its part of the unconstrained value.

        Args:
            i: number of the site
            part: ``(*particles, size)``, with dimensions of size 1 on the right for the plates of the site
            modes: whether to leave the Jacobian out
        """
        batch, transform, event_dim = self.batches[i], self.transforms[i], self.events[i]
        left = part.shape[: max(0, part.dim() - 1 - len(batch))]
        part = part.reshape([*left, *batch, *self.inner[i]])
        value = transform(part)
        if modes:
            return dist.Delta(value, event_dim=event_dim)
        jacobian = transform.log_abs_det_jacobian(part, value)
        jacobian = jacobian.reshape([*left, *batch, -1]).sum(-1)
        return dist.Delta(value, log_density=-jacobian, event_dim=event_dim)
