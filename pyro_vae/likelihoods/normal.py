"""The normal likelihood, for real data."""

from __future__ import annotations

from collections.abc import Sequence

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.distributions import RefittedNormal
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.scales import OptimalSigma, Scale, as_scale

__all__ = ["Normal"]


class Normal(PerEntry):
    r"""Independent normal entries with means from the decoder.

    .. math:: p(x \mid z) = \prod_i \mathcal N(x_i; \mu_i, \sigma_i^2), \qquad \mu = \mathrm{net}(z)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), shape)``, or ``(2, *shape)`` with ``PerExample`` scales
        context: width of the context in addition to z
        scale: std :math:`\sigma` in the units of the data: a number (fixed) or an object of ``pyro_vae.scales``
            (``Fixed``, ``Shared`` for one learned number, ``PerExample`` for an output of the network,
            ``OptimalSigma`` for the best one of each minibatch in closed form)

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
        net: NetBuilder = MLP,
        context: int = 0,
        scale: Scale | OptimalSigma | float = 1.0,
    ) -> None:
        scale = scale if isinstance(scale, OptimalSigma) else as_scale(scale)
        outputs = 1 if scale.outputs else None
        super().__init__(latent, shape, net=net, context=context, outputs=outputs, scale=scale)

    def distribution(self, loc: Tensor, *raw: Tensor) -> dist.Normal | RefittedNormal:
        """Return the distribution of every entry."""
        if self.training and isinstance(self.scale, OptimalSigma):
            return RefittedNormal(loc, self.scale(), self.scale.refit)
        return dist.Normal(loc, self.scale(*raw))
