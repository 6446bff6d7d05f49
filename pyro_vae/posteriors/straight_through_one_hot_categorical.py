"""The categorical posterior with a straight-through gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import StraightThroughOneHotCategorical as Family
from pyro_vae.nets import MLP, Net, build

__all__ = ["StraightThroughOneHotCategorical"]


class StraightThroughOneHotCategorical(Conditional):
    r"""One class as a one-hot vector, whose draws pass their gradient on to the probabilities.

    .. math:: z = e_k + p - \operatorname{stop}(p), \qquad k \sim p = \operatorname{softmax}(\mathrm{net}(x))

    Draws and densities are exactly those of the categorical, so that it fits a categorical prior; the gradient is
    biased.

    References:
        Estimating or propagating gradients through stochastic neurons for conditional computation
        (Bengio et al., 2013), https://arxiv.org/abs/1308.3432

    Args:
        shape: shape of one datum
        latent: number of classes
        net: makes the encoder network, ``net(shape, (latent,))``
        context: how many numbers of context one datum brings beside x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> StraightThroughOneHotCategorical((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
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

    def forward(self, x: Tensor, *context: Tensor) -> Family:
        """Return q(z given x)."""
        return Family(logits=self.net(x, *context))
