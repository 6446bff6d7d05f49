"""The normal prior with learned location and scale."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.scales import inverse_positive, positive

__all__ = ["Normal"]


class Normal(Conditional):
    r"""Independent normal latents with learned means and scales.

    .. math:: p(z) = \prod_j \mathcal N(z_j; \mu_j, \sigma_j^2)

    With a decoder that starts with a linear layer it is as flexible as the standard normal; it is of use where
    the decoder is fixed, or where the posterior cannot move to the origin.

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
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(latent))
        self.raw = nn.Parameter(inverse_positive(torch.ones(latent)))

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z); any context is left aside."""
        return dist.Normal(self.loc, positive(self.raw)).to_event(1)
