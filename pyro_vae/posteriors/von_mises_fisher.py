"""The von Mises-Fisher posterior."""

from __future__ import annotations

from pyro_vae.distributions import VonMisesFisher as Family
from pyro_vae.posteriors.spherical import Spherical

__all__ = ["VonMisesFisher"]


class VonMisesFisher(Spherical):
    r"""The von Mises-Fisher distribution: directions around a mean, like a normal on the sphere.

    .. math:: q(z \mid x) \propto e^{\kappa \mu^\top z}, \qquad \lVert z \rVert = 1, \quad
              (\operatorname{softplus}^{-1} \kappa, \mu) = \mathrm{net}(x)

    The density is with respect to surface area. The KL from the prior ``HypersphericalUniform`` has a closed form.

    References:
        Hyperspherical variational auto-encoders (Davidson et al., 2018), https://arxiv.org/abs/1804.00891

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
        >>> VonMisesFisher((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    family = Family
