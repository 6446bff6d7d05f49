"""The discretized logistic likelihood, for pixels with discrete levels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.distributions import DiscretizedLogistic as Family
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.scales import PerExample, Scale, as_scale

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(PerEntry):
    r"""Independent logistic entries rounded to levels k / (L - 1), with open outermost bins.

    .. math:: p(x \mid z) = \prod_i \operatorname{sigmoid} \frac{x_i + h - \mu_i}{s_i}
              - \operatorname{sigmoid} \frac{x_i - h - \mu_i}{s_i}, \qquad h = \frac{1}{2 (L - 1)}, \quad
              \mu = \tfrac{1}{2} + \mathrm{net}(z)

    References:
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (1, *shape))``, or ``(2, *shape)`` with ``PerExample`` scales
        context: width of the context in addition to z
        levels: number L of levels, at least 2; data are exactly ``k / (levels - 1)`` (within 1e-4)
        scale: s, for data from 0 to 1: a number (fixed) or an object of ``pyro_vae.scales``; None for ``PerExample``

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: ``levels`` is below 2.

    Example:
        >>> import torch
        >>> DiscretizedLogistic(3, (28, 28))(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    hint = (
        "Round pixels to k / (levels - 1) first, for instance (x * 255).round() / 255. For continuous grey values use "
        "ContinuousBernoulli or Normal."
    )

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        levels: int = 256,
        scale: Scale | float | None = None,
    ) -> None:
        check_int("levels", levels, 2)
        scale = PerExample() if scale is None else as_scale(scale)
        super().__init__(latent, shape, net=net, context=context, outputs=1, scale=scale)
        self.levels = levels

    def distribution(self, loc: Tensor, *raw: Tensor) -> Family:
        """Return the distribution of every entry."""
        return Family(loc + 0.5, self.scale(*raw), self.levels)
