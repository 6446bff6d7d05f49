"""The relaxed categorical (concrete, Gumbel-softmax) posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae.distributions import RelaxedOneHotCategorical as Family
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.posteriors.per_latent import PerLatent
from pyro_vae.scales import check_positive

__all__ = ["RelaxedOneHotCategorical"]


class RelaxedOneHotCategorical(PerLatent):
    r"""Gumbel-softmax: a point on the simplex, which becomes one-hot as the temperature goes to 0.

    .. math:: z = \operatorname{softmax}\left(\frac{\mathrm{net}(x) + g}{\tau}\right), \qquad g_k \sim \mathrm{Gumbel}

    References:
        The concrete distribution (Maddison et al., 2017), https://arxiv.org/abs/1611.00712;
        Categorical reparameterization with Gumbel-softmax (Jang et al., 2017), https://arxiv.org/abs/1611.01144

    Args:
        shape: shape of one example
        latent: number of classes
        net: builds the encoder, ``net(shape, (latent,))``
        context: width of the context in addition to x
        temperature: :math:`\tau`, positive; the buffer of the same name may be lowered during training

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``temperature`` is not positive and finite.

    Example:
        >>> import torch
        >>> RelaxedOneHotCategorical((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = None

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        temperature: float = 2 / 3,
    ) -> None:
        super().__init__(shape, latent, net=net, context=context)
        check_positive("temperature", temperature)
        self.temperature = nn.Buffer(torch.tensor(float(temperature)))

    def distribution(self, logits: Tensor) -> Family:
        """Return q(z given x)."""
        return Family(self.temperature, logits=logits)
