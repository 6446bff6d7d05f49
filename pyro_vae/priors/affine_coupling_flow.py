"""The affine coupling flow prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.flow import Flow, Layer
from pyro_vae.nets import MLP, Net, build

__all__ = ["AffineCouplingFlow"]


class AffineCouplingFlow(Conditional):
    r"""A standard normal seen through affine maps of one half of the latents that the other half decides (RealNVP).

    .. math:: u_a = z_a, \quad u_b = (z_b - \mu(z_a))\, e^{-s(z_a)}, \qquad
              \log p(z) = \log \mathcal N(u; 0, I) - \sum s

    The order of the latents is reversed after each layer. Densities and draws need one pass each.

    References:
        Density estimation using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803

    Args:
        latent: number of latents, at least 2
        layers: number of layers
        net: makes the network of each layer, ``net((half,), (2, rest))``
        context: how many numbers of context (labels) one datum brings
        limit: bound of the log-scale s of a layer, which keeps densities finite far from the data

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ValueError: there is no second latent to decide, or no layer.

    Example:
        >>> AffineCouplingFlow(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        latent: int,
        *,
        layers: int = 6,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        limit: float = 3.0,
    ) -> None:
        super().__init__()
        if latent < 2:
            raise ValueError(f"latent: a coupling needs at least two latents, got {latent}; use Normal for one")
        if layers < 1:
            raise ValueError(f"layers: expected at least 1, got {layers}")
        self.context = context
        self.layers = nn.ModuleList(AffineCoupling(latent, net, context, limit) for _ in range(layers))
        self.loc = nn.Buffer(torch.zeros(latent), persistent=False)
        self.scale = nn.Buffer(torch.ones(latent), persistent=False)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> AffineCouplingFlow:
        """Return a small instance, of two latents where one is asked for."""
        return cls(max(latent, 2), layers=2, net=partial(MLP, hidden=(16,)))

    def forward(self, *context: Tensor) -> Flow:
        """Return p(z), or p(z given c)."""
        context = context if self.context else ()
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
        return Flow(
            dist.Normal(self.loc, self.scale).expand((*batch, len(self.loc))).to_event(1), self.layers, context
        )


class AffineCoupling(Layer):
    """Keep the first half, map the second, reverse the order."""

    def __init__(self, latent: int, net: Callable[..., Net | nn.Module], context: int, limit: float) -> None:
        super().__init__()
        self.sizes = (latent // 2, latent - latent // 2)
        self.net = build(net, (self.sizes[0],), (2, self.sizes[1]), context)
        self.limit = limit

    def affine(self, kept: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and log-scale of the second half."""
        loc, raw = self.net(kept, *context).unbind(-2)
        return loc, self.limit * torch.tanh(raw / self.limit)

    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and the log-determinant."""
        kept, mapped = z.split(self.sizes, -1)
        loc, log_scale = self.affine(kept, *context)
        return join(kept, (mapped - loc) * torch.exp(-log_scale)).flip(-1), -log_scale.sum(-1)

    def inverse(self, u: Tensor, *context: Tensor) -> Tensor:
        """Return z."""
        kept, mapped = u.flip(-1).split(self.sizes, -1)
        loc, log_scale = self.affine(kept, *context)
        return join(kept, loc + mapped * torch.exp(log_scale))


def join(kept: Tensor, mapped: Tensor) -> Tensor:
    """Return both halves as one vector; a context may have given the second more leading dimensions."""
    return torch.cat([kept.expand(*mapped.shape[:-1], -1), mapped], -1)
