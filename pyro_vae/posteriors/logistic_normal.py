"""The logistic-normal posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import LogisticNormal as Family
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["LogisticNormal"]


class LogisticNormal(Conditional):
    r"""Proportions that are the softmax of independent normals, made by the network from x.

    .. math:: z = \operatorname{softmax}(h), \qquad h_k \sim \mathcal N(\mu_k, \sigma_k^2), \quad
              (\mu, \operatorname{softplus}^{-1} \sigma) = \mathrm{net}(x)

    References:
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Args:
        shape: shape of one datum
        latent: number of proportions
        net: makes the encoder network, ``net(shape, (2, latent))``
        context: how many numbers of context one datum brings beside x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> LogisticNormal((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.context = context
        self.net = build(net, shape, (2, latent), context)

    def forward(self, x: Tensor, *context: Tensor) -> Family:
        """Return q(z given x)."""
        loc, raw = self.net(x, *context).unbind(-2)
        return Family(loc, positive(raw))
