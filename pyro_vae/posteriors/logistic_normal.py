"""The logistic-normal posterior."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.distributions import LogisticNormal as Family
from pyro_vae.posteriors.per_latent import PerLatent
from pyro_vae.scales import positive

__all__ = ["LogisticNormal"]


class LogisticNormal(PerLatent):
    r"""Proportions that are the softmax of independent normals with means and scales from the encoder.

    .. math:: z = \operatorname{softmax}(h), \qquad h_k \sim \mathcal N(\mu_k, \sigma_k^2), \quad
              (\mu, \operatorname{softplus}^{-1} \sigma) = \mathrm{net}(x)

    References:
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Args:
        shape: shape of one example
        latent: number of proportions
        net: builds the encoder, ``net(shape, (2, latent))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> LogisticNormal((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = 2

    def distribution(self, loc: Tensor, raw: Tensor) -> Family:
        """Return q(z given x)."""
        return Family(loc, positive(raw))
