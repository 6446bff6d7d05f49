"""The continuous Bernoulli likelihood, for grey values in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import ContinuousBernoulli as Family
from pyro_vae.nets import MLP, Net, build

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(Conditional):
    r"""Independent grey values in [0, 1]: the Bernoulli form with its missing normaliser.

    .. math:: p(x \mid z) = \prod_i C(\lambda_i)\, \lambda_i^{x_i} (1 - \lambda_i)^{1 - x_i}, \qquad
              \operatorname{logit} \lambda = \mathrm{net}(z), \quad
              C(\lambda) = \frac{2 \tanh^{-1}(1 - 2 \lambda)}{1 - 2 \lambda}

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders
        (Loaiza-Ganem and Cunningham, 2019), https://arxiv.org/abs/1907.06845

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), shape)``
        context: how many numbers of context one datum brings beside z

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> ContinuousBernoulli(3, (8, 8))(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    hint = "Scale the data to [0, 1], or use Normal."

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.context = context
        self.net = build(net, (latent,), shape, context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        return Family(logits=self.net(z, *context)).to_event(len(self.net.out_shape))
