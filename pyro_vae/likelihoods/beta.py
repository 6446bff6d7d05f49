"""The beta likelihood, for shares strictly between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Beta as Family
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import positive

__all__ = ["Beta"]


class Beta(Conditional):
    r"""Independent shares in (0, 1), with both concentrations made by the network from z.

    .. math:: p(x \mid z) = \prod_i \frac{x_i^{a_i - 1} (1 - x_i)^{b_i - 1}}{B(a_i, b_i)}, \qquad
              (a, b) = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    References:
        Beta regression for modelling rates and proportions (Ferrari and Cribari-Neto, 2004),
        https://doi.org/10.1080/0266476042000214501

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (2, *shape))``
        context: how many numbers of context one datum brings beside z

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Beta(3, (8, 8))(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    hint = "Where shares reach 0 or 1 use ContinuousBernoulli, or shrink them: (x * (n - 1) + 0.5) / n for n data."

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        self.net = build(net, (latent,), (2, *self.shape), context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        a, b = self.net(z, *context).unbind(-1 - len(self.shape))
        return Family(positive(a), positive(b)).to_event(len(self.shape))
