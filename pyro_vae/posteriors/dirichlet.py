"""The Dirichlet posterior."""

from __future__ import annotations

from collections.abc import Sequence

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.posteriors.per_latent import PerLatent
from pyro_vae.scales import check_positive, positive

__all__ = ["Dirichlet"]


class Dirichlet(PerLatent):
    r"""Proportions that sum to 1, with concentrations from the encoder.

    .. math:: q(z \mid x) = \frac{\Gamma(\sum_k \alpha_k)}{\prod_k \Gamma(\alpha_k)} \prod_k z_k^{\alpha_k - 1}, \qquad
              \operatorname{softplus}^{-1} (\alpha - \alpha_0) = \mathrm{net}(x)

    Samples have implicit reparameterization gradients.

    References:
        Implicit reparameterization gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498

    Args:
        shape: shape of one example
        latent: number of proportions
        net: builds the encoder, ``net(shape, (latent,))``
        context: width of the context in addition to x
        min_concentration: :math:`\alpha_0`, the smallest concentration; far below 0.1, samples are rounded to corners
            of the simplex, where the density is not finite

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``min_concentration`` is not positive and finite.

    Example:
        >>> import torch
        >>> Dirichlet((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
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
        min_concentration: float = 0.1,
    ) -> None:
        super().__init__(shape, latent, net=net, context=context)
        check_positive("min_concentration", min_concentration)
        self.min_concentration = min_concentration

    def distribution(self, raw: Tensor) -> dist.Dirichlet:
        """Return q(z given x)."""
        return dist.Dirichlet(self.min_concentration + positive(raw))
