"""The Laplace prior."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.scales import check_scale, inverse_positive, positive

__all__ = ["Laplace"]


class Laplace(Conditional):
    r"""Independent Laplace latents, which ask for few large and many small values.

    .. math:: p(z) = \prod_j \frac{1}{2 b} \exp(-\lvert z_j - \mu_j \rvert / b)

    References:
        Disentangling disentanglement in variational autoencoders (Mathieu et al., 2019),
        https://arxiv.org/abs/1812.02833

    Args:
        latent: number of latents
        scale: b, the mean distance from the centre; where learning starts if it is learned
        learned: learn :math:`\mu` and b, of one number a latent each

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Raises:
        ValueError: the scale is not positive and finite.

    Example:
        >>> Laplace(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int, *, scale: float = 1.0, learned: bool = False) -> None:
        super().__init__()
        check_scale("scale", scale)
        hold = nn.Parameter if learned else nn.Buffer
        self.loc = hold(torch.zeros(latent))
        self.raw = hold(inverse_positive(torch.full((latent,), float(scale))))

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z); any context is left aside."""
        return dist.Laplace(self.loc, positive(self.raw)).to_event(1)
