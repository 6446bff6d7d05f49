"""The Laplace posterior."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.posteriors.per_latent import PerLatent
from pyro_vae.scales import positive

__all__ = ["Laplace"]


class Laplace(PerLatent):
    r"""Independent Laplace latents with locations and scales from the encoder.

    .. math:: q(z \mid x) = \prod_j \frac{1}{2 b_j} \exp\left(-\frac{\lvert z_j - \mu_j \rvert}{b_j}\right), \qquad
              (\mu, \operatorname{softplus}^{-1} b) = \mathrm{net}(x)

    References:
        Learning overcomplete representations (Lewicki and Sejnowski, 2000), https://doi.org/10.1162/089976600300015826

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (2, latent))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> Laplace((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = 2

    def distribution(self, loc: Tensor, raw: Tensor) -> dist.Independent:
        """Return q(z given x)."""
        return dist.Laplace(loc, positive(raw)).to_event(1)
