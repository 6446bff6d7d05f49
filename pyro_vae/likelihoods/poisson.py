"""The Poisson likelihood, for counts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_vae.distributions import Poisson as Family
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.scales import positive

__all__ = ["Poisson"]


class Poisson(PerEntry):
    r"""Independent Poisson counts with rates from the decoder.

    .. math:: p(x \mid z) = \prod_i  \frac{r_i^{x_i} e^{-r_i}}{x_i!}, \qquad
              r = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), shape)``
        context: width of the context in addition to z

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Poisson(3, (8, 8))(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    hint = "Counts are 0, 1, 2, ...; for positive real numbers use Gamma or LogNormal, for any real numbers Normal."

    def __init__(self, latent: int, shape: Sequence[int], *, net: NetBuilder = MLP, context: int = 0) -> None:
        super().__init__(latent, shape, net=net, context=context)

    def distribution(self, raw: Tensor) -> Family:
        """Return the distribution of every entry."""
        return Family(positive(raw))
