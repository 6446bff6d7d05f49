"""The full-rank normal posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

import pyro_vae.distributions.normal_kl  # noqa: F401  (registers the divergence from independent normals)
from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["FullRankNormal"]


class FullRankNormal(Conditional):
    r"""A normal with any covariance, whose Cholesky factor the network makes from x.

    .. math:: q(z \mid x) = \mathcal N(z; \mu, L L^\top), \qquad
              L_{ij} = \sigma_i \frac{v_{ij}}{\sqrt{1 + \sum_{k<i} v_{ik}^2}}, \quad v_{ii} = 1

    So :math:`\sigma` are the standard deviations of the latents and the rows of v their correlations, any of which the
    network can make; the diagonal of L is positive.

    References:
        Variational inference: a review for statisticians (Blei et al., 2017), https://arxiv.org/abs/1601.00670

    Args:
        shape: shape of one datum
        latent: number of latents
        net: makes the encoder network, ``net(shape, (latent * (latent + 3) // 2,))``
        context: how many numbers of context one datum brings beside x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> FullRankNormal((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.context = context
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
