"""The low-rank normal posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import LowRankNormal as Family
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.scales import positive

__all__ = ["LowRankNormal"]


class LowRankNormal(Conditional):
    r"""A normal with low-rank plus diagonal covariance from the encoder.

    .. math:: q(z \mid x) = \mathcal N(z; \mu, S (F F^\top + I) S), \qquad S = \operatorname{diag} \sigma, \quad
              (\mu, \operatorname{softplus}^{-1} \sigma, F) = \mathrm{net}(x), \quad \lvert F_{ij} \rvert < 30

    References:
        Gaussian variational approximation with a factor covariance structure (Ong et al., 2018),
        https://arxiv.org/abs/1701.03208

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (2 + rank, latent))``
        context: width of the context in addition to x
        rank: number of factors, the columns of F

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``rank`` is below 1.

    Example:
        >>> import torch
        >>> LowRankNormal((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self, shape: Sequence[int], latent: int, *, net: NetBuilder = MLP, context: int = 0, rank: int = 2
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("rank", rank)
        self.net = build(net, shape, (2 + rank, latent), context)

    def forward(self, x: Tensor, *context: Tensor) -> Family:
        """Return q(z given x)."""
        out = self.net(x, *context)
        loc, scale = out[..., 0, :], positive(out[..., 1, :])
        # bounded relative to the independent part, so that I + F F^T keeps its identity in float32
        factor = 30 * torch.tanh(out[..., 2:, :] / 30)
        return Family(loc, scale.unsqueeze(-2) * factor, scale)
