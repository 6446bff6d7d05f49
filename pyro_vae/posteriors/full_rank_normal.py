"""The full-rank normal posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.scales import positive

__all__ = ["FullRankNormal"]


class FullRankNormal(Conditional):
    r"""A normal with full covariance, whose Cholesky factor comes from the encoder.

    .. math:: q(z \mid x) = \mathcal N(z; \mu, L L^\top), \qquad
              L_{ij} = \sigma_i \frac{v_{ij}}{\sqrt{1 + \sum_{k<i} v_{ik}^2}}, \quad v_{ii} = 1

    :math:`\sigma` are the stds of the latents and the rows of v determine their correlations, any of which the encoder
    can represent; the diagonal of L is positive.

    References:
        Variational inference: a review for statisticians (Blei et al., 2017), https://arxiv.org/abs/1601.00670

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (latent * (latent + 3) // 2,))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> FullRankNormal((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(self, shape: Sequence[int], latent: int, *, net: NetBuilder = MLP, context: int = 0) -> None:
        super().__init__(latent=latent, context=context)
        self.latent = latent
        rows, columns = torch.tril_indices(latent, latent, -1)
        self.register_buffer("place", rows * latent + columns, persistent=False)
        self.net = build(net, shape, (latent * (latent + 3) // 2,), context)

    def forward(self, x: Tensor, *context: Tensor) -> dist.MultivariateNormal:
        """Return q(z given x)."""
        n = self.latent
        loc, raw, below = self.net(x, *context).split([n, n, len(self.place)], -1)
        v = below.new_zeros(*below.shape[:-1], n * n).index_copy(-1, self.place, below).unflatten(-1, (n, n))
        v = v + torch.eye(n, dtype=v.dtype, device=v.device)
        factor = (positive(raw) / v.norm(dim=-1)).unsqueeze(-1) * v
        return dist.MultivariateNormal(loc, scale_tril=factor)
