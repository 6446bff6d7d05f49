"""The masked autoregressive flow prior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.flow import Flow, Layer
from pyro_vae.distributions.masked_affine import MaskedAffine

__all__ = ["MaskedAutoregressiveFlow"]


class MaskedAutoregressiveFlow(Conditional):
    r"""A standard normal seen through affine maps of each latent that the latents before it decide (MAF).

    .. math:: u_j = (z_j - \mu_j(z_{<j}))\, e^{-s_j(z_{<j})}, \qquad
              \log p(z) = \log \mathcal N(u; 0, I) - \sum s

    The order of the latents is reversed after each layer. A density needs one pass, a draw ``latent`` passes a
    layer.

    References:
        Masked autoregressive flow for density estimation (Papamakarios et al., 2017),
        https://arxiv.org/abs/1705.07057

    Args:
        latent: number of latents
        layers: number of layers
        hidden: width of each hidden layer of the masked networks
        context: how many numbers of context (labels) one datum brings
        limit: bound of the log-scale s of a layer, which keeps densities finite far from the data

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ValueError: there is no layer.

    Example:
        >>> MaskedAutoregressiveFlow(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        latent: int,
        *,
        layers: int = 5,
        hidden: Sequence[int] = (256, 256),
        context: int = 0,
        limit: float = 3.0,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers: expected at least 1, got {layers}")
        self.context = context
        made = [MaskedAffine(latent, hidden=hidden, context=context, limit=limit) for _ in range(layers)]
        self.layers = nn.ModuleList(Reversed(layer) for layer in made)
        self.loc = nn.Buffer(torch.zeros(latent), persistent=False)
        self.scale = nn.Buffer(torch.ones(latent), persistent=False)

    def forward(self, *context: Tensor) -> Flow:
        """Return p(z), or p(z given c)."""
        context = context if self.context else ()
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
        return Flow(
            dist.Normal(self.loc, self.scale).expand((*batch, len(self.loc))).to_event(1), self.layers, context
        )


class Reversed(Layer):
    """A layer, then the order of its coordinates reversed."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and the log-determinant."""
        u, log_det = self.layer(z, *context)
        return u.flip(-1), log_det

    def inverse(self, u: Tensor, *context: Tensor) -> Tensor:
        """Return z."""
        return self.layer.inverse(u.flip(-1), *context)
