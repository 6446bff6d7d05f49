"""The neural spline flow posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.amortized_flow import AmortizedFlow, Step
from pyro_vae.distributions.rational_spline import rational_spline
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.scales import check_positive, positive

__all__ = ["NeuralSplineFlow"]


class NeuralSplineFlow(Conditional):
    r"""A normal pushed through coupling layers of monotone splines that depend on features of x.

    .. math:: u_a = \epsilon_a, \quad u_b = S(\epsilon_b; \mathrm{net}_l(\epsilon_a, h(x))), \qquad
              z = \mu + \sigma u, \quad \epsilon \sim \mathcal N(0, I)

    a and b are the two halves of the latents, whose order is reversed after each layer. S is a rational-quadratic
    spline on [-bound, bound] and the identity outside. Samples and densities of any value take one pass.

    References:
        Neural spline flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (2 * latent + features,))``
        context: width of the context in addition to x
        layers: number of layers
        features: length of h(x)
        num_bins: number of bins of a spline, 2 to 500
        bound: end of the splines, in stds
        hidden: width of each hidden layer of the networks of the splines

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``layers`` or ``features`` is below 1, ``num_bins`` outside 2 to 500, or ``bound`` not positive.

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
        net: NetBuilder = MLP,
        context: int = 0,
        layers: int = 2,
        features: int = 32,
        num_bins: int = 8,
        bound: float = 5.0,
        hidden: Sequence[int] = (128,),
    ) -> None:
        super().__init__(latent=latent, context=context)
        for name, value, minimum in (("layers", layers, 1), ("features", features, 1), ("num_bins", num_bins, 2)):
            check_int(name, value, minimum)
        if num_bins > 500:
            raise ValueError(f"num_bins: expected at most 500, got {num_bins}")
        check_positive("bound", bound)
        self.sizes, self.bound = (latent, latent, features), bound
        self.net = build(net, shape, (sum(self.sizes),), context)
        self.nets = nn.ModuleList(SplineNet(latent, num_bins, features, hidden) for _ in range(layers))

    def forward(self, x: Tensor, *context: Tensor) -> AmortizedFlow:
        """Return q(z given x)."""
        loc, raw, features = self.net(x, *context).split(self.sizes, -1)
        steps: list[Step] = [Coupling(net, features, self.bound) for net in self.nets]
        # a standard normal start, whose mass is where the splines bend
        start = torch.zeros_like(loc)
        return AmortizedFlow(start, torch.ones_like(loc), [*steps, Affine(loc, positive(raw))])


class SplineNet(nn.Module):
    """The network from the first half and features of x to the splines of the second half."""

    def __init__(self, latent: int, num_bins: int, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.first, out = latent // 2, (latent - latent // 2, 3 * num_bins - 1)
        # a single latent has no first half
        self.net = (
            MLP((self.first,), out, context=features, hidden=hidden)
            if self.first
            else MLP((features,), out, hidden=hidden)
        )

    def forward(self, kept: Tensor, features: Tensor) -> Tensor:
        """Return the parameters of the splines, ``(*batch, mapped, 3 * num_bins - 1)``."""
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
        """Return the preimage of ``z``."""
        return self.spline(z.flip(-1), inverse=True)[0]


class Affine(Step):
    """Scale and shift each coordinate."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log-determinant."""
        return self.loc + self.scale * z, self.scale.log().sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the preimage of ``z``."""
        return (z - self.loc) / self.scale
