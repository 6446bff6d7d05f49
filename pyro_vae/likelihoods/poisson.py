"""The Poisson likelihood, for counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Poisson as Family
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import positive

__all__ = ["Poisson"]


class Poisson(Conditional):
    r"""Independent counts without a bound, whose rates the network makes from z.

    .. math:: p(x \mid z) = \prod_i  \frac{r_i^{x_i} e^{-r_i}}{x_i!}, \qquad
              r = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), shape)``
        context: how many numbers of context one datum brings beside z

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Poisson(3, (8, 8))(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    hint = "Counts are 0, 1, 2, ...; for positive real numbers use Gamma or LogNormal, for any real numbers Normal."

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
        self.net = build(net, (latent,), self.shape, context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        return Family(positive(self.net(z, *context))).to_event(len(self.shape))
