"""The uniform prior on the sphere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import HypersphericalUniform as Family

__all__ = ["HypersphericalUniform"]


class HypersphericalUniform(Conditional):
    r"""Directions: the uniform distribution on the unit sphere of ``latent`` coordinates.

    .. math:: p(z) = \frac{\Gamma(n/2)}{2 \pi^{n/2}}, \qquad \lVert z \rVert = 1, \quad n = \mathrm{latent}

    A density by surface area, to be paired with a posterior on the sphere (power spherical, von Mises-Fisher).

    References:
        Hyperspherical variational auto-encoders (Davidson et al., 2018), https://arxiv.org/abs/1804.00891

    Args:
        latent: number of coordinates n; the sphere itself has n - 1 dimensions

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``latent`` is below 1.

    Example:
        >>> HypersphericalUniform(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.like = nn.Buffer(torch.zeros(()), persistent=False)
        self()  # a wrong size is refused here and not in the first step

    def forward(self, *context: Tensor) -> Family:
        """Return p(z); any context is left aside."""
        return Family(self.latent, like=self.like)
