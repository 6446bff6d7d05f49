"""The ordered logistic likelihood, for ordinal data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.distributions import OnGrid
from pyro_vae.distributions import OrderedLogistic as Family
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.scales import positive

__all__ = ["OrderedLogistic"]


class OrderedLogistic(PerEntry):
    r"""Independent ordinal entries: logistic variables cut at learned thresholds.

    .. math:: p(x \mid z) = \prod_i \operatorname{sigmoid}(c_{i, x_i} - \eta_i)
              - \operatorname{sigmoid}(c_{i, x_i - 1} - \eta_i), \qquad \eta = \mathrm{net}(z)

    Each entry i has thresholds :math:`c_{i, 0} < c_{i, 1} < \dots`. Terms are 0 before the first and 1 after the last.

    References:
        Regression models for ordinal data (McCullagh, 1980), https://www.jstor.org/stable/2984952

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), shape)``
        context: width of the context in addition to z
        levels: number of ordered levels, at least 2
        grid: whether the data are ``k / (levels - 1)`` (within 1e-4), or codes ``k = 0, 1, ..., levels - 1``

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: ``levels`` is below 2.

    Example:
        >>> import torch
        >>> OrderedLogistic(3, (8,), levels=5)(torch.zeros(5, 3)).event_shape
        torch.Size([8])
    """

    hint = (
        "Ordinal data are codes 0, 1, ..., levels - 1 (or k / (levels - 1) with grid=True). For classes without an "
        "order use Categorical."
    )

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        levels: int = 5,
        grid: bool = False,
    ) -> None:
        super().__init__(latent, shape, net=net, context=context)
        check_int("levels", levels, 2)
        self.levels, self.step = levels, 1 / (levels - 1) if grid else 1.0
        # initial thresholds: about one apart, symmetric around 0
        self.first = nn.Parameter(torch.full(self.shape, -(levels - 2) / 2))
        self.raw_gaps = nn.Parameter(torch.full((*self.shape, levels - 2), 0.5413))

    def distribution(self, location: Tensor) -> OnGrid:
        """Return the distribution of every entry."""
        return OnGrid(Family(location, positive(self.raw_gaps), self.first), self.levels, self.step)
