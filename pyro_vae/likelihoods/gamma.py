"""The gamma likelihood, for positive data."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_vae.distributions import Gamma as Family
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.scales import PerExample, Scale, as_scale, positive

__all__ = ["Gamma"]


class Gamma(PerEntry):
    r"""Independent positive gamma entries with means from the decoder.

    .. math:: p(x \mid z) = \prod_i \frac{(k_i / \mu_i)^{k_i}}{\Gamma(k_i)} x_i^{k_i - 1} e^{-k_i x_i / \mu_i}, \qquad
              \mu = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    References:
        Generalized linear models (Nelder and Wedderburn, 1972), https://www.jstor.org/stable/2344614

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (1, *shape))``, or ``(2, *shape)`` with ``PerExample`` concentrations
        context: width of the context in addition to z
        concentration: k, the inverse of the squared coefficient of variation: a number (fixed) or an object of
            ``pyro_vae.scales``; None for ``PerExample``

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Gamma(3, (8, 8))(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    hint = "For data that may be 0 or negative use Normal or StudentT, for counts NegativeBinomial."

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        concentration: Scale | float | None = None,
    ) -> None:
        k = PerExample() if concentration is None else as_scale(concentration, "concentration")
        super().__init__(latent, shape, net=net, context=context, outputs=1, concentration=k)

    def distribution(self, raw_mean: Tensor, *raw: Tensor) -> Family:
        """Return the distribution of every entry."""
        k = self.concentration(*raw)
        return Family(k, k / positive(raw_mean))
