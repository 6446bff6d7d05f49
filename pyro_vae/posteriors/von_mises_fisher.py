"""The von Mises-Fisher posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import VonMisesFisher as Family
from pyro_vae.distributions.direction import direction
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["VonMisesFisher"]


class VonMisesFisher(Conditional):
    r"""Directions around a mean that the network makes from x: a normal distribution bent onto the sphere.

    .. math:: q(z \mid x) \propto e^{\kappa \mu^\top z}, \qquad \lVert z \rVert = 1, \quad
              (\operatorname{softplus}^{-1} \kappa, \mu) = \mathrm{net}(x)

    A density by surface area. Its divergence from the prior ``HypersphericalUniform`` has a closed form.

    References:
        Hyperspherical variational auto-encoders (Davidson et al., 2018), https://arxiv.org/abs/1804.00891

    Args:
        shape: shape of one datum
        latent: number of coordinates; the sphere has one dimension less
        net: makes the encoder network, ``net(shape, (latent + 1,))``
        context: how many numbers of context one datum brings beside x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``latent`` is below 2.

    Example:
        >>> import torch
        >>> VonMisesFisher((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
    ) -> None:
        super().__init__()
        if latent < 2:
            raise ValueError(f"latent: expected at least 2 coordinates of a sphere, got {latent}")
        self.context = context
        self.net = build(net, shape, (latent + 1,), context)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> VonMisesFisher:
        """Return a small instance, on a circle where one coordinate is asked for."""
        return cls(shape, max(latent, 2))

    def forward(self, x: Tensor, *context: Tensor) -> Family:
        """Return q(z given x)."""
        raw = self.net(x, *context)
        return Family(direction(raw[..., 1:]), positive(raw[..., 0]))
