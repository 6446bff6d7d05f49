"""The Bernoulli posterior with a straight-through gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import StraightThroughBernoulli as Family
from pyro_vae.nets import MLP, Net, build

__all__ = ["StraightThroughBernoulli"]


class StraightThroughBernoulli(Conditional):
    r"""Independent binary latents, whose draws pass their gradient on to the probabilities.

    .. math:: z = b + p - \operatorname{stop}(p), \qquad b_j \sim \mathrm{Bernoulli}(p_j), \quad
              \operatorname{logit} p = \mathrm{net}(x)

    Draws and densities are exactly those of the Bernoulli, so that it fits a Bernoulli prior; the gradient is biased.

    References:
        Estimating or propagating gradients through stochastic neurons for conditional computation
        (Bengio et al., 2013), https://arxiv.org/abs/1308.3432

    Args:
        shape: shape of one datum
        latent: number of latents
        net: makes the encoder network, ``net(shape, (latent,))``
        context: how many numbers of context one datum brings beside x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> StraightThroughBernoulli((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
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
        self.net = build(net, shape, (latent,), context)

    def forward(self, x: Tensor, *context: Tensor) -> dist.Independent:
        """Return q(z given x)."""
        return Family(logits=self.net(x, *context)).to_event(1)
