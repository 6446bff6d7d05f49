"""The normal likelihood, for real data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import RefittedNormal
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import OptimalSigma, Scale, as_scale

__all__ = ["Normal"]


class Normal(Conditional):
    r"""Independent normal entries, whose means the network makes from z.

    .. math:: p(x \mid z) = \prod_i \mathcal N(x_i; \mu_i, \sigma_i^2), \qquad \mu = \mathrm{net}(z)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), shape)``, or ``net((latent,), (2, *shape))`` where
            the scale is per datum
        context: how many numbers of context one datum brings beside z
        scale: sigma in the units of the data: a number (fixed), or an object of ``pyro_vae.scales``
            (``Fixed``, ``Shared`` for one learned number, ``PerExample`` for an output of the network,
            ``OptimalSigma`` for the best one of each batch in closed form)

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch, pyro_vae as pv
        >>> Normal(3, (28, 28), scale=pv.scales.PerExample())(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        scale: Scale | OptimalSigma | float = 1.0,
    ) -> None:
        super().__init__()
        self.context = context
        self.scale = scale if isinstance(scale, OptimalSigma) else as_scale(scale)
        self.shape = as_shape(shape)
        rows = (1 + self.scale.outputs,) if self.scale.outputs else ()
        self.net = build(net, (latent,), (*rows, *self.shape), context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        out = self.net(z, *context)
        loc, *raw = out.unbind(-1 - len(self.shape)) if self.scale.outputs else (out,)
        if self.training and isinstance(self.scale, OptimalSigma):
            return RefittedNormal(loc, self.scale(), self.scale.refit).to_event(len(self.shape))
        return dist.Normal(loc, self.scale(*raw)).to_event(len(self.shape))
