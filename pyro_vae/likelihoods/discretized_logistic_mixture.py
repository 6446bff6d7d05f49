"""The mixture of discretized logistics, for pixels with levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import CoupledLogisticMixture
from pyro_vae.distributions import DiscretizedLogisticMixture as Family
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import positive

__all__ = ["DiscretizedLogisticMixture"]


class DiscretizedLogisticMixture(Conditional):
    r"""Entries from mixtures of logistics rounded to levels k / (L - 1), with coupled channels on request.

    .. math:: p(x \mid z) = \prod_i \sum_j \pi_{ij}\, \mathrm{DL}(x_i; \mu_{ij}, s_{ij}), \qquad
              \mu = \tfrac{1}{2} + \mathrm{net}_\mu(z)

    Coupled, the channels c of a pixel p share the component j and depend on each other:
    :math:`\prod_p \sum_j \pi_{pj} \prod_c \mathrm{DL}(x_{cp}; \mu_{cpj} + \sum_{b < c} a_{cbpj} x_{bp}, s_{cpj})`.
    DL is the density of DiscretizedLogistic.

    References:
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (rows, *shape))``, where coupled
            ``net((latent,), (rows, *shape[1:]))``
        context: how many numbers of context one datum brings beside z
        components: how many logistics an entry mixes
        levels: number L of levels, from 2 on; data are exactly ``k / (levels - 1)`` (within 1e-4)
        coupled: whether the first dimension of ``shape`` are channels (red, green, blue) that depend on each other; no
            entry may then be missing

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: fewer than 2 levels or no component.

    Example:
        >>> import torch
        >>> DiscretizedLogisticMixture(3, (3, 8, 8), coupled=True)(torch.zeros(5, 3)).event_shape
        torch.Size([3, 8, 8])
    """

    hint = (
        "Round pixels to k / (levels - 1) first, for instance (x * 255).round() / 255; for grey values of any "
        "size use ContinuousBernoulli or Normal."
    )

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        components: int = 5,
        levels: int = 256,
        coupled: bool = False,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        check_int("levels", levels, 2)
        if components < 1:
            raise ValueError(f"components: expected at least 1, got {components}")
        self.levels, self.components, self.coupled = levels, components, coupled
        channels = self.shape[0] if coupled and self.shape else 1
        self.parts = (1, channels, channels, channels * (channels - 1) // 2) if coupled else (1, 1, 1)
        rest = self.shape[1:] if coupled else self.shape
        self.net = build(net, (latent,), (components * sum(self.parts), *rest), context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent | CoupledLogisticMixture:
        """Return p(x given z)."""
        out = self.net(z, *context)
        pixels = len(self.net.out_shape) - 1
        if not self.coupled:
            logits, loc, raw = out.movedim(-1 - pixels, -1).split(self.components, -1)
            return Family(logits, loc + 0.5, positive(raw), self.levels).to_event(pixels)
        # (*batch, rows, *pixels) to (*batch, rows, pixels, components)
        out = out.reshape(*out.shape[: out.dim() - 1 - pixels], sum(self.parts), self.components, -1).mT
        logits, loc, raw, coupling = out.split(self.parts, -3)
        logits, scale = logits.squeeze(-3), positive(raw)
        return CoupledLogisticMixture(logits, loc + 0.5, scale, coupling.tanh(), self.shape, self.levels)
