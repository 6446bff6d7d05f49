"""The categorical posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, Net, build

__all__ = ["OneHotCategorical"]


class OneHotCategorical(Conditional):
    r"""One of ``latent`` classes as a one-hot vector, for estimators that need no gradient through the draw.

    .. math:: q(z = e_k \mid x) = \operatorname{softmax}(\mathrm{net}(x))_k

    It has no reparameterized sampler: train it by score functions or enumeration, or take
    ``StraightThroughOneHotCategorical`` or ``RelaxedOneHotCategorical``.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        shape: shape of one datum
        latent: number of classes
        net: makes the encoder network, ``net(shape, (latent,))``
        context: how many numbers of context one datum brings beside x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> OneHotCategorical((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
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

    def forward(self, x: Tensor, *context: Tensor) -> dist.OneHotCategorical:
        """Return q(z given x)."""
        return dist.OneHotCategorical(logits=self.net(x, *context))
