"""The beta likelihood, for proportions strictly between 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_vae.distributions import Beta as Family
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.scales import positive

__all__ = ["Beta"]


class Beta(PerEntry):
    r"""Independent beta entries in (0, 1) with both concentrations from the decoder.

    .. math:: p(x \mid z) = \prod_i \frac{x_i^{a_i - 1} (1 - x_i)^{b_i - 1}}{B(a_i, b_i)}, \qquad
              (a, b) = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    References:
        Beta regression for modelling rates and proportions (Ferrari and Cribari-Neto, 2004),
        https://doi.org/10.1080/0266476042000214501

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (2, *shape))``
        context: width of the context in addition to z

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Beta(3, (8, 8))(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    hint = (
        "For proportions that reach 0 or 1 use ContinuousBernoulli, or shrink them: (x * (n - 1) + 0.5) / n for n "
        "examples."
    )

    def __init__(self, latent: int, shape: Sequence[int], *, net: NetBuilder = MLP, context: int = 0) -> None:
        super().__init__(latent, shape, net=net, context=context, outputs=2)

    def distribution(self, a: Tensor, b: Tensor) -> Family:
        """Return the distribution of every entry."""
        return Family(positive(a), positive(b))
