"""The uniform prior on the sphere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import HypersphericalUniform as Family

__all__ = ["HypersphericalUniform"]


class HypersphericalUniform(Conditional):
    r"""The uniform distribution on the unit sphere, for latents that are directions.

    .. math:: p(z) = \frac{\Gamma(n/2)}{2 \pi^{n/2}}, \qquad \lVert z \rVert = 1, \quad n = \mathrm{latent}

    The density is with respect to surface area. Use it with a posterior on the sphere (PowerSpherical,
    VonMisesFisher).

    References:
        Hyperspherical variational auto-encoders (Davidson et al., 2018), https://arxiv.org/abs/1804.00891

    Args:
        latent: number of coordinates n; the sphere has n - 1 dimensions

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Example:
        >>> HypersphericalUniform(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int) -> None:
        super().__init__(latent=latent)
        self.latent = latent
        self.like = nn.Buffer(torch.zeros(()), persistent=False)

    def forward(self, *context: Tensor) -> Family:
        """Return p(z), which ignores any context."""
        return Family(self.latent, like=self.like)
