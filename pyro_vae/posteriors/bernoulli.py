"""The Bernoulli posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, Net, build

__all__ = ["Bernoulli"]


class Bernoulli(Conditional):
    r"""Independent binary latents, for estimators that need no gradient through the draw.

    .. math:: q(z \mid x) = \prod_j p_j^{z_j} (1 - p_j)^{1 - z_j}, \qquad \operatorname{logit} p = \mathrm{net}(x)

    It has no reparameterized sampler: train it by score functions or enumeration, or take
    ``StraightThroughBernoulli`` or ``RelaxedBernoulli``.

    References:
        Neural variational inference and learning in belief networks (Mnih and Gregor, 2014),
        https://arxiv.org/abs/1402.0030

    Args:
        shape: shape of one datum
        latent: number of latents
        net: makes the encoder network, ``net(shape, (latent,))``
        context: how many numbers of context one datum brings beside x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> Bernoulli((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
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
        return dist.Bernoulli(logits=self.net(x, *context)).to_event(1)
