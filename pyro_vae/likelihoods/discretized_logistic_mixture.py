"""The mixture of discretized logistics, for pixels with discrete levels."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import CoupledLogisticMixture
from pyro_vae.distributions import DiscretizedLogisticMixture as Family
from pyro_vae.nets import MLP, NetBuilder, Shape
from pyro_vae.nets.contract import build
from pyro_vae.nets.shapes import as_shape
from pyro_vae.scales import positive

__all__ = ["DiscretizedLogisticMixture"]


class DiscretizedLogisticMixture(Conditional):
    r"""Mixtures of logistics rounded to levels k / (L - 1), per entry or coupled over the channels of a pixel.

    .. math:: p(x \mid z) = \prod_i \sum_j \pi_{ij}\, \mathrm{DL}(x_i; \mu_{ij}, s_{ij}), \qquad
              \mu = \tfrac{1}{2} + \mathrm{net}_\mu(z)

    If coupled, the channels c of a pixel p share the component j and depend on each other:
    :math:`\prod_p \sum_j \pi_{pj} \prod_c \mathrm{DL}(x_{cp}; \mu_{cpj} + \sum_{b < c} a_{cbpj} x_{bp}, s_{cpj})`.
    DL is the density of DiscretizedLogistic.

    References:
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (outputs, *shape))``, or ``(outputs, *shape[1:])`` if coupled
        context: width of the context in addition to z
        num_components: number of mixture components
        levels: number L of levels, at least 2; data are exactly ``k / (levels - 1)`` (within 1e-4)
        coupled: whether the first dimension of ``shape`` holds channels (red, green, blue) that depend on each other;
            entries may then not be missing

    Raises:
        ValueError: ``levels`` is below 2, or ``num_components`` below 1.

    Example:
        >>> import torch
        >>> DiscretizedLogisticMixture(3, (3, 8, 8), coupled=True)(torch.zeros(5, 3)).event_shape
        torch.Size([3, 8, 8])
    """

    hint = (
        "Round pixels to k / (levels - 1) first, for instance (x * 255).round() / 255. For continuous grey values use "
        "ContinuousBernoulli or Normal."
    )

    def __init__(
        self,
        latent: int,
        shape: Shape,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        num_components: int = 5,
        levels: int = 256,
        coupled: bool = False,
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("levels", levels, 2)
        check_int("num_components", num_components)
        self.shape = as_shape(shape)
        self.levels, self.num_components, self.coupled = levels, num_components, coupled
        channels = self.shape[0] if coupled and self.shape else 1
        self.sizes = (1, channels, channels, channels * (channels - 1) // 2) if coupled else (1, 1, 1)
        pixels = self.shape[1:] if coupled else self.shape
        self.net = build(net, (latent,), (num_components * sum(self.sizes), *pixels), context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent | CoupledLogisticMixture:
        """Return p(x given z)."""
        out = self.net(z, *context)
        pixels = len(self.net.out_shape) - 1
        if not self.coupled:
            logits, loc, raw = out.movedim(-1 - pixels, -1).split(self.num_components, -1)
            return Family(logits, loc + 0.5, positive(raw), self.levels).to_event(pixels)
        # (*batch, outputs, *pixels) to (*batch, sizes, pixels, components)
        out = out.reshape(*out.shape[: out.dim() - 1 - pixels], sum(self.sizes), self.num_components, -1).mT
        logits, loc, raw, coupling = out.split(self.sizes, -3)
        logits, scale = logits.squeeze(-3), positive(raw)
        return CoupledLogisticMixture(logits, loc + 0.5, scale, coupling.tanh(), self.shape, self.levels)
