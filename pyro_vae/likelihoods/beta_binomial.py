"""The beta-binomial likelihood, for counts with a known total and more spread than binomial."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import BetaBinomial as Family
from pyro_vae.distributions import OnGrid
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import positive

__all__ = ["BetaBinomial"]


class BetaBinomial(Conditional):
    r"""Independent counts out of n trials whose probability is itself drawn from a beta.

    .. math:: p(x \mid z) = \prod_i \binom{n}{x_i} \frac{B(x_i + a_i, n - x_i + b_i)}{B(a_i, b_i)}, \qquad
              (a, b) = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    References:
        The beta-binomial distribution for regression (Skellam, 1948), https://www.jstor.org/stable/2983779

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (2, *shape))``
        context: how many numbers of context one datum brings beside z
        total: number n of trials, the largest count
        grid: whether data are shares ``k / total`` (within 1e-4), or else counts ``k = 0, 1, ..., total``

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: a total below 1.

    Example:
        >>> import torch
        >>> BetaBinomial(3, (8, 8), total=16)(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    hint = (
        "Counts run from 0 to total, shares k / total need grid=True; counts without a bound take Poisson or "
        "NegativeBinomial."
    )

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        total: int = 255,
        grid: bool = False,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        check_int("total", total)
        self.total, self.step = total, 1 / total if grid else 1.0
        self.net = build(net, (latent,), (2, *self.shape), context)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> BetaBinomial:
        """Build a small instance, whose counts an encoder takes without scaling."""
        return cls(latent, shape, total=8)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        a, b = self.net(z, *context).unbind(-1 - len(self.shape))
        counts = Family(positive(a), positive(b), torch.full_like(a, self.total))
        return OnGrid(counts, self.total + 1, self.step).to_event(len(self.shape))
