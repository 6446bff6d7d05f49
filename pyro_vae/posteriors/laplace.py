"""The Laplace posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["Laplace"]


class Laplace(Conditional):
    r"""Independent Laplace latents, whose locations and scales the network makes from x.

    .. math:: q(z \mid x) = \prod_j \frac{1}{2 b_j} \exp\left(-\frac{\lvert z_j - \mu_j \rvert}{b_j}\right), \qquad
              (\mu, \operatorname{softplus}^{-1} b) = \mathrm{net}(x)

    References:
        Learning overcomplete representations (Lewicki and Sejnowski, 2000), https://doi.org/10.1162/089976600300015826

    Args:
        shape: shape of one datum
        latent: number of latents
        net: makes the encoder network, ``net(shape, (2, latent))``
        context: how many numbers of context one datum brings beside x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> Laplace((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
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
        self.context = context
        self.net = build(net, shape, (2, latent), context)

    def forward(self, x: Tensor, *context: Tensor) -> dist.Independent:
        """Return q(z given x)."""
        loc, raw = self.net(x, *context).unbind(-2)
        return dist.Laplace(loc, positive(raw)).to_event(1)
