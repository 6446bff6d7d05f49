"""The ordered logistic likelihood, for grades."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import OnGrid
from pyro_vae.distributions import OrderedLogistic as Family
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import positive

__all__ = ["OrderedLogistic"]


class OrderedLogistic(Conditional):
    r"""Independent grades, cut out of logistic variables by learned thresholds.

    .. math:: p(x \mid z) = \prod_i \operatorname{sigmoid}(c_{i, x_i} - \eta_i)
              - \operatorname{sigmoid}(c_{i, x_i - 1} - \eta_i), \qquad \eta = \mathrm{net}(z)

    with thresholds :math:`c_{i, 0} < c_{i, 1} < \dots` of each entry i, 0 below the first and 1 above the last.

    References:
        Regression models for ordinal data (McCullagh, 1980), https://www.jstor.org/stable/2984952

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), shape)``
        context: how many numbers of context one datum brings beside z
        levels: number of grades, from 2 on
        grid: whether data are ``k / (levels - 1)`` (within 1e-4), or else codes ``k = 0, 1, ..., levels - 1``

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: fewer than 2 levels.

    Example:
        >>> import torch
        >>> OrderedLogistic(3, (8,), levels=5)(torch.zeros(5, 3)).event_shape
        torch.Size([8])
    """

    hint = (
        "Grades are codes 0, 1, ..., levels - 1 (or k / (levels - 1) with grid=True); classes without an "
        "order take Categorical."
    )

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        levels: int = 5,
        grid: bool = False,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        check_int("levels", levels, 2)
        self.levels, self.step = levels, 1 / (levels - 1) if grid else 1.0
        self.net = build(net, (latent,), self.shape, context)
        # thresholds of equal grades to start with: about one apart, the middle at 0
        self.first = nn.Parameter(torch.full(self.shape, -(levels - 2) / 2))
        self.raw_gaps = nn.Parameter(torch.full((*self.shape, levels - 2), 0.5413))

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        fn = Family(self.net(z, *context), positive(self.raw_gaps), self.first)
        return OnGrid(fn, self.levels, self.step).to_event(len(self.shape))
