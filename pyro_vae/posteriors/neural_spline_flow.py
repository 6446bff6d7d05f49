"""The neural spline flow posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.amortized_flow import AmortizedFlow, Step
from pyro_vae.distributions.rational_spline import rational_spline
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["NeuralSplineFlow"]


class NeuralSplineFlow(Conditional):
    r"""A normal pushed through monotone splines of one half of the latents that the other half and x decide.

    .. math:: u_a = \epsilon_a, \quad u_b = S(\epsilon_b; \mathrm{net}_l(\epsilon_a, h(x))), \qquad
              z = \mu + \sigma u, \quad \epsilon \sim \mathcal N(0, I)

    S is a rational-quadratic spline on [-bound, bound] and the identity outside; the order is reversed after each
    layer. Draws and densities of any value take one pass.

    References:
        Neural spline flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Args:
        shape: shape of one datum
        latent: number of latents
        net: makes the encoder network, ``net(shape, (2 * latent + features,))``
        context: how many numbers of context one datum brings beside x
        layers: number of layers
        features: length of h(x)
        bins: number of bins of a spline
        bound: where the splines end, in standard deviations
        hidden: width of each hidden layer of the networks of the splines

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: there is no layer or no feature, a bin too few or too many, or no interval.

    Example:
        >>> import torch
        >>> NeuralSplineFlow((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        layers: int = 2,
        features: int = 32,
        bins: int = 8,
        bound: float = 5.0,
        hidden: Sequence[int] = (128,),
    ) -> None:
        super().__init__()
        for name, value, least, most in (("layers", layers, 1, 1000), ("features", features, 1, 10**6)):
            if not least <= value <= most:
                raise ValueError(f"{name}: expected {least} to {most}, got {value}")
        if not 2 <= bins <= 500:
            raise ValueError(f"bins: expected 2 to 500, got {bins}")
        if not 0 < bound < float("inf"):
            raise ValueError(f"bound: expected a positive number, got {bound}")
        self.context = context
        self.sizes, self.bound = (latent, latent, features), bound
        self.net = build(net, shape, (sum(self.sizes),), context)
        self.nets = nn.ModuleList(Decider(latent, bins, features, hidden) for _ in range(layers))

    def forward(self, x: Tensor, *context: Tensor) -> AmortizedFlow:
        """Return q(z given x)."""
        loc, raw, features = self.net(x, *context).split(self.sizes, -1)
        steps: list[Step] = [Coupling(net, features, self.bound) for net in self.nets]
        # the start is standard, so that the splines meet it where they bend
        start = torch.zeros_like(loc)
        return AmortizedFlow(start, torch.ones_like(loc), [*steps, Affine(loc, positive(raw))])


class Decider(nn.Module):
    """Make the splines of the second half from the first half and features of x."""

    def __init__(self, latent: int, bins: int, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.first, out = latent // 2, (latent - latent // 2, 3 * bins - 1)
        # a single latent has no first half
        self.net = (
            MLP((self.first,), out, context=features, hidden=hidden)
            if self.first
            else MLP((features,), out, hidden=hidden)
        )

    def forward(self, kept: Tensor, features: Tensor) -> Tensor:
        """Return the parameters of the splines."""
        return self.net(kept, features) if self.first else self.net(features)


class Coupling(Step):
    """Keep the first half, map the second by splines, reverse the order."""

    def __init__(self, net: nn.Module, features: Tensor, bound: float) -> None:
        self.net, self.features, self.bound = net, features, bound

    def spline(self, z: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return both halves, the second mapped, and its log-slope."""
        half = z.shape[-1] // 2
        kept, mapped = z[..., :half], z[..., half:]
        mapped, log_slope = rational_spline(mapped, self.net(kept, self.features), self.bound, inverse=inverse)
        return torch.cat([kept, mapped], -1), log_slope.sum(-1)

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log-determinant."""
        z, log_det = self.spline(z, inverse=False)
        return z.flip(-1), log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Return what is mapped to ``z``."""
        return self.spline(z.flip(-1), inverse=True)[0]


class Affine(Step):
    """Scale and shift each coordinate."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log-determinant."""
        return self.loc + self.scale * z, self.scale.log().sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return what is mapped to ``z``."""
        return (z - self.loc) / self.scale
