"""The log-normal likelihood, for positive data."""

from __future__ import annotations

from collections.abc import Sequence

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.scales import Scale, as_scale

__all__ = ["LogNormal"]


class LogNormal(PerEntry):
    r"""Independent positive entries with normal logarithms, whose means come from the decoder.

    .. math:: p(x \mid z) = \prod_i \frac{1}{x_i} \mathcal N(\log x_i; \mu_i, \sigma_i^2), \qquad
              \mu = \mathrm{net}(z)

    References:
        Handling incomplete heterogeneous data using VAEs (Nazabal et al., 2020), https://arxiv.org/abs/1807.03653

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (1, *shape))``, or ``(2, *shape)`` with ``PerExample`` scales
        context: width of the context in addition to z
        scale: std of the logarithm: a number (fixed) or an object of ``pyro_vae.scales`` (``Fixed``, ``Shared`` for
            one learned number, ``PerExample`` for an output of the network)

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> LogNormal(3, (28, 28))(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    hint = "For data that may be 0 or negative use Normal or StudentT, for counts NegativeBinomial."

    def __init__(
        self, latent: int, shape: Sequence[int], *, net: NetBuilder = MLP, context: int = 0, scale: Scale | float = 1.0
    ) -> None:
        super().__init__(latent, shape, net=net, context=context, outputs=1, scale=as_scale(scale))

    def distribution(self, loc: Tensor, *raw: Tensor) -> dist.LogNormal:
        """Return the distribution of every entry."""
        return dist.LogNormal(loc, self.scale(*raw))
