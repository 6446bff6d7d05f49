"""The Laplace likelihood, for real data with outliers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import Scale, as_scale

__all__ = ["Laplace"]


class Laplace(Conditional):
    r"""Independent Laplace entries, whose locations the network makes from z: the mean absolute error as a density.

    .. math:: p(x \mid z) = \prod_i \frac{1}{2 b_i} e^{-|x_i - \mu_i| / b_i}, \qquad \mu = \mathrm{net}(z)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (rows, *shape))`` with a row for the location
            and one for a scale that is an output
        context: how many numbers of context one datum brings beside z
        scale: b in the units of the data: a number (fixed), or an object of ``pyro_vae.scales`` (``Fixed``,
            ``Shared`` for one learned number, ``PerExample`` for an output of the network)

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Laplace(3, (28, 28))(torch.zeros(5, 3)).event_shape
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
        return dist.Laplace(loc, self.scale(*raw)).to_event(len(self.shape))
