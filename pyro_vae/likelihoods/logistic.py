"""The logistic likelihood, for real data with heavier tails than normal."""

from __future__ import annotations

from collections.abc import Sequence

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.scales import Scale, as_scale

__all__ = ["Logistic"]


class Logistic(PerEntry):
    r"""Independent logistic entries with locations from the decoder.

    .. math:: p(x \mid z) = \prod_i \frac{1}{s_i} \operatorname{sigmoid}(y_i) \operatorname{sigmoid}(-y_i), \qquad
              y_i = \frac{x_i - \mu_i}{s_i}, \quad \mu = \mathrm{net}(z)

    References:
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (1, *shape))``, or ``(2, *shape)`` with ``PerExample`` scales
        context: width of the context in addition to z
        scale: s in the units of the data: a number (fixed) or an object of ``pyro_vae.scales`` (``Fixed``, ``Shared``
            for one learned number, ``PerExample`` for an output of the network)

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Logistic(3, (28, 28))(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    def __init__(
        self, latent: int, shape: Sequence[int], *, net: NetBuilder = MLP, context: int = 0, scale: Scale | float = 1.0
    ) -> None:
        super().__init__(latent, shape, net=net, context=context, outputs=1, scale=as_scale(scale))

    def distribution(self, loc: Tensor, *raw: Tensor) -> dist.Logistic:
        """Return the distribution of every entry."""
        return dist.Logistic(loc, self.scale(*raw))
