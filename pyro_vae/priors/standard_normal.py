"""The standard normal prior."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional

__all__ = ["StandardNormal"]


class StandardNormal(Conditional):
    r"""Independent normal latents of mean 0 and variance 1.

    .. math:: p(z) = \prod_{j} \mathcal N(z_j; 0, 1)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Example:
        >>> StandardNormal(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int) -> None:
        super().__init__(latent=latent)
        self.loc = nn.Buffer(torch.zeros(latent), persistent=False)
        self.scale = nn.Buffer(torch.ones(latent), persistent=False)

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z), which ignores any context."""
        return dist.Normal(self.loc, self.scale).to_event(1)
