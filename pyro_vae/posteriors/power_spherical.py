"""The power spherical posterior."""

from __future__ import annotations

from pyro_vae.distributions import PowerSpherical as Family
from pyro_vae.posteriors.spherical import Spherical

__all__ = ["PowerSpherical"]


class PowerSpherical(Spherical):
    r"""The power spherical distribution: directions around a mean, with a sampler without rejections.

    .. math:: q(z \mid x) \propto (1 + \mu^\top z)^\kappa, \qquad \lVert z \rVert = 1, \quad
              (\operatorname{softplus}^{-1} \kappa, \mu) = \mathrm{net}(x)

    The density is with respect to surface area. The KL from the prior ``HypersphericalUniform`` has a closed form.

    References:
        The power spherical distribution (De Cao and Aziz, 2020), https://arxiv.org/abs/2006.04437

    Args:
        shape: shape of one example
        latent: number of coordinates, at least 2; the sphere has one dimension less
        net: builds the encoder, ``net(shape, (latent + 1,))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``latent`` is below 2.

    Example:
        >>> import torch
        >>> PowerSpherical((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    family = Family
