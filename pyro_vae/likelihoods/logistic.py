"""The logistic likelihood, for real data with tails heavier than normal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import Scale, as_scale

__all__ = ["Logistic"]


class Logistic(Conditional):
    r"""Independent logistic entries, whose locations the network makes from z.

    .. math:: p(x \mid z) = \prod_i \frac{1}{s_i} \operatorname{sigmoid}(y_i) \operatorname{sigmoid}(-y_i), \qquad
              y_i = \frac{x_i - \mu_i}{s_i}, \quad \mu = \mathrm{net}(z)

    References:
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (rows, *shape))`` with a row for the location
            and one for a scale that is an output
        context: how many numbers of context one datum brings beside z
        scale: s in the units of the data: a number (fixed), or an object of ``pyro_vae.scales`` (``Fixed``,
            ``Shared`` for one learned number, ``PerExample`` for an output of the network)

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Logistic(3, (28, 28))(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        scale: Scale | float = 1.0,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        self.scale = as_scale(scale)
        self.net = build(net, (latent,), (1 + self.scale.outputs, *self.shape), context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        loc, *raw = self.net(z, *context).unbind(-1 - len(self.shape))
        return dist.Logistic(loc, self.scale(*raw)).to_event(len(self.shape))
