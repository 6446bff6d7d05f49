"""The neural spline flow prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.flow import Flow, Layer
from pyro_vae.distributions.rational_spline import rational_spline
from pyro_vae.nets import MLP, Net, build

__all__ = ["NeuralSplineFlow"]


class NeuralSplineFlow(Conditional):
    r"""A standard normal seen through monotone splines of one half of the latents that the other half decides.

    .. math:: u_a = z_a, \quad u_b = S(z_b; \mathrm{net}(z_a)), \qquad
              \log p(z) = \log \mathcal N(u; 0, I) + \sum_b \log S'(z_b)

    S is a rational-quadratic spline on [-bound, bound] and the identity outside. The order of the latents is
    reversed after each layer. Densities and draws need one pass each.

    References:
        Neural spline flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Args:
        latent: number of latents, at least 2
        layers: number of layers
        bins: number of bins of a spline
        bound: where the splines end; latents further out stay as they are
        net: makes the network of each layer, ``net((half,), (rest, 3 * bins - 1))``
        context: how many numbers of context (labels) one datum brings

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ValueError: there is no second latent to decide, no layer, a bin too few or too many, or no interval.

    Example:
        >>> NeuralSplineFlow(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        latent: int,
        *,
        layers: int = 4,
        bins: int = 8,
        bound: float = 6.0,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
    ) -> None:
        super().__init__()
        if latent < 2:
            raise ValueError(f"latent: a coupling needs at least two latents, got {latent}; use Normal for one")
        for name, value, least, most in (("layers", layers, 1, 1000), ("bins", bins, 2, 500)):
            if not least <= value <= most:
                raise ValueError(f"{name}: expected {least} to {most}, got {value}")
        if not 0 < bound < float("inf"):
            raise ValueError(f"bound: expected a positive number, got {bound}")
        self.context = context
        self.layers = nn.ModuleList(SplineCoupling(latent, bins, bound, net, context) for _ in range(layers))
        self.loc = nn.Buffer(torch.zeros(latent), persistent=False)
        self.scale = nn.Buffer(torch.ones(latent), persistent=False)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> NeuralSplineFlow:
        """Return a small instance, of two latents where one is asked for."""
        return cls(max(latent, 2), layers=2, bins=4, net=partial(MLP, hidden=(16,)))

    def forward(self, *context: Tensor) -> Flow:
        """Return p(z), or p(z given c)."""
        context = context if self.context else ()
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
        return Flow(
            dist.Normal(self.loc, self.scale).expand((*batch, len(self.loc))).to_event(1), self.layers, context
        )


class SplineCoupling(Layer):
    """Keep the first half, map the second by splines, reverse the order."""

    def __init__(
        self, latent: int, bins: int, bound: float, net: Callable[..., Net | nn.Module], context: int
    ) -> None:
        super().__init__()
        self.sizes = (latent // 2, latent - latent // 2)
        self.net = build(net, (self.sizes[0],), (self.sizes[1], 3 * bins - 1), context)
        self.bound = bound

    def spline(self, z: Tensor, context: Sequence[Tensor], inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Return both halves, the second mapped, and its log-slope."""
        kept, mapped = z.split(self.sizes, -1)
        raw = self.net(kept, *context)
        # a context may have given the parameters more leading dimensions than z has
        mapped, log_slope = rational_spline(mapped.expand(raw.shape[:-1]), raw, self.bound, inverse=inverse)
        return torch.cat([kept.expand(*mapped.shape[:-1], -1), mapped], -1), log_slope.sum(-1)

    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and the log-determinant."""
        u, log_det = self.spline(z, context)
        return u.flip(-1), log_det

    def inverse(self, u: Tensor, *context: Tensor) -> Tensor:
        """Return z."""
        return self.spline(u.flip(-1), context, inverse=True)[0]
