"""The continuous Bernoulli likelihood, for grey values in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_vae.distributions import ContinuousBernoulli as Family
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(PerEntry):
    r"""Independent grey values in [0, 1]: a Bernoulli with the normalizing constant for continuous data.

    .. math:: p(x \mid z) = \prod_i C(\lambda_i)\, \lambda_i^{x_i} (1 - \lambda_i)^{1 - x_i}, \qquad
              \operatorname{logit} \lambda = \mathrm{net}(z), \quad
              C(\lambda) = \frac{2 \tanh^{-1}(1 - 2 \lambda)}{1 - 2 \lambda}

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders
        (Loaiza-Ganem and Cunningham, 2019), https://arxiv.org/abs/1907.06845

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), shape)``
        context: width of the context in addition to z

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> ContinuousBernoulli(3, (8, 8))(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    hint = "Scale the data to [0, 1], or use Normal."

    def __init__(self, latent: int, shape: Sequence[int], *, net: NetBuilder = MLP, context: int = 0) -> None:
        super().__init__(latent, shape, net=net, context=context)

    def distribution(self, logits: Tensor) -> Family:
        """Return the distribution of every entry."""
        return Family(logits=logits)
