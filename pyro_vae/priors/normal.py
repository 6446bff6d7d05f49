"""The normal prior with learned location and scale."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.priors.location_scale import LocationScale
from pyro_vae.scales import positive

__all__ = ["Normal"]


class Normal(LocationScale):
    r"""Independent normal latents with learned means and scales.

    .. math:: p(z) = \prod_j \mathcal N(z_j; \mu_j, \sigma_j^2)

    If the decoder starts with a linear layer, this prior is no more flexible than StandardNormal. It is useful if the
    decoder is fixed, or if the posterior cannot move to the origin.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Example:
        >>> Normal(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int) -> None:
        super().__init__(latent, learned=True)

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z), which ignores any context."""
        return dist.Normal(self.loc, positive(self.raw)).to_event(1)
