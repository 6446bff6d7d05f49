"""The log-normal likelihood, for positive data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import Scale, as_scale

__all__ = ["LogNormal"]


class LogNormal(Conditional):
    r"""Independent positive entries whose logarithms are normal, with means that the network makes from z.

    .. math:: p(x \mid z) = \prod_i \frac{1}{x_i} \mathcal N(\log x_i; \mu_i, \sigma_i^2), \qquad
              \mu = \mathrm{net}(z)

    References:
        Handling incomplete heterogeneous data using VAEs (Nazabal et al., 2020), https://arxiv.org/abs/1807.03653

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (rows, *shape))`` with a row for the location
            and one for a scale that is an output
        context: how many numbers of context one datum brings beside z
        scale: sigma of the logarithm: a number (fixed), or an object of ``pyro_vae.scales`` (``Fixed``, ``Shared`` for
            one learned number, ``PerExample`` for an output of the network)

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> LogNormal(3, (28, 28))(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    hint = "For data that may be 0 or negative use Normal or StudentT; for counts NegativeBinomial."

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
        return dist.LogNormal(loc, self.scale(*raw)).to_event(len(self.shape))
