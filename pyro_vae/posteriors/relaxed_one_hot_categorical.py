"""The relaxed categorical (concrete, Gumbel-softmax) posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import RelaxedOneHotCategorical as Family
from pyro_vae.nets import MLP, Net, build

__all__ = ["RelaxedOneHotCategorical"]


class RelaxedOneHotCategorical(Conditional):
    r"""A point of the simplex that becomes one-hot as the temperature goes to 0.

    .. math:: z = \operatorname{softmax}\left(\frac{\mathrm{net}(x) + g}{\tau}\right), \qquad g_k \sim \mathrm{Gumbel}

    References:
        The concrete distribution (Maddison et al., 2017), https://arxiv.org/abs/1611.00712;
        Categorical reparameterization with Gumbel-softmax (Jang et al., 2017), https://arxiv.org/abs/1611.01144

    Args:
        shape: shape of one datum
        latent: number of classes
        net: makes the encoder network, ``net(shape, (latent,))``
        context: how many numbers of context one datum brings beside x
        temperature: tau, positive; the attribute of the same name, a buffer, may be lowered during training

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: the temperature is not positive and finite.

    Example:
        >>> import torch
        >>> RelaxedOneHotCategorical((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        temperature: float = 2 / 3,
    ) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        self.context = context
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.net = build(net, shape, (latent,), context)

    def forward(self, x: Tensor, *context: Tensor) -> Family:
        """Return q(z given x)."""
        return Family(self.temperature, logits=self.net(x, *context))
