"""The relaxed Bernoulli (binary concrete) posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.distributions import RelaxedBernoulli as Family
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.posteriors.per_latent import PerLatent
from pyro_vae.scales import check_positive

__all__ = ["RelaxedBernoulli"]


class RelaxedBernoulli(PerLatent):
    r"""Binary concrete latents between 0 and 1, which become binary as the temperature goes to 0.

    .. math:: z_j = \sigma\left(\frac{t_j + \ell_j}{\tau}\right), \qquad \ell_j \sim \mathrm{Logistic}, \quad
              t = \mathrm{net}(x)

    References:
        The concrete distribution (Maddison et al., 2017), https://arxiv.org/abs/1611.00712

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (latent,))``
        context: width of the context in addition to x
        temperature: :math:`\tau`, positive; the buffer of the same name may be lowered during training

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``temperature`` is not positive and finite.

    Example:
        >>> import torch
        >>> RelaxedBernoulli((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
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

    def distribution(self, logits: Tensor) -> dist.Independent:
        """Return q(z given x)."""
        return Family(self.temperature, logits).to_event(1)
