"""The Laplace prior."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.priors.location_scale import LocationScale
from pyro_vae.scales import positive

__all__ = ["Laplace"]


class Laplace(LocationScale):
    r"""Independent Laplace latents, which favour few large and many small values.

    .. math:: p(z) = \prod_j \frac{1}{2 b} \exp(-\lvert z_j - \mu_j \rvert / b)

    References:
        Disentangling disentanglement in variational autoencoders (Mathieu et al., 2019),
        https://arxiv.org/abs/1812.02833

    Args:
        latent: number of latents
        scale: b, the mean absolute deviation from :math:`\mu = 0`, or its initial value if it is learned
        learned: learn :math:`\mu` and b of each latent

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Raises:
        ValueError: the scale is not a finite number above 1e-4.

    Example:
        >>> Laplace(3)().event_shape
        torch.Size([3])
    """

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z), which ignores any context."""
        return dist.Laplace(self.loc, positive(self.raw)).to_event(1)
