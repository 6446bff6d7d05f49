"""The binomial likelihood, for counts with a known total."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Binomial as Family
from pyro_vae.distributions import OnGrid
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build

__all__ = ["Binomial"]


class Binomial(Conditional):
    r"""Independent counts out of n trials, whose log-odds the network makes from z.

    .. math:: p(x \mid z) = \prod_i \binom{n}{x_i} \lambda_i^{x_i} (1 - \lambda_i)^{n - x_i}, \qquad
              \operatorname{logit} \lambda = \mathrm{net}(z)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), shape)``
        context: how many numbers of context one datum brings beside z
        total: number n of trials, the largest count
        grid: whether data are shares ``k / total`` (within 1e-4), or else counts ``k = 0, 1, ..., total``; counts
            reach the encoder as they are, so that for totals of a hundred or more shares train better

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: a total below 1.

    Example:
        >>> import torch
        >>> Binomial(3, (8, 8), total=16)(torch.zeros(5, 3)).event_shape
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
        self.net = build(net, (latent,), self.shape, context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        logits = self.net(z, *context)
        counts = Family(torch.full_like(logits, self.total), logits=logits)
        return OnGrid(counts, self.total + 1, self.step).to_event(len(self.shape))

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> Binomial:
        """Build a small instance, whose counts an encoder takes without scaling."""
        return cls(latent, shape, total=8)
