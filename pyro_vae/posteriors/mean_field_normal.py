"""The mean-field normal posterior."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.posteriors.per_latent import PerLatent
from pyro_vae.scales import positive

__all__ = ["MeanFieldNormal"]


class MeanFieldNormal(PerLatent):
    r"""Independent normal latents with means and scales from the encoder.

    .. math:: q(z \mid x) = \prod_j \mathcal N(z_j; \mu_j, \sigma_j^2), \qquad
              (\mu, \operatorname{softplus}^{-1} \sigma) = \mathrm{net}(x)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (2, latent))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> MeanFieldNormal((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = 2

    def distribution(self, loc: Tensor, raw: Tensor) -> dist.Independent:
        """Return q(z given x)."""
        return dist.Normal(loc, positive(raw)).to_event(1)
