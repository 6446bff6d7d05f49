"""The categorical prior, for one class as a one-hot vector."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional

__all__ = ["OneHotCategorical"]


class OneHotCategorical(Conditional):
    r"""One of ``latent`` classes, as a one-hot vector.

    .. math:: p(z) = \prod_k \pi_k^{z_k}, \qquad z \in \{e_1, \dots, e_K\}

    References:
        Categorical reparameterization with Gumbel-softmax (Jang et al., 2017), https://arxiv.org/abs/1611.01144

    Args:
        latent: number of classes K
        learned: learn the probabilities, which are 1/K otherwise

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Example:
        >>> OneHotCategorical(3)().sample().sum()
        tensor(1.)
    """

    def __init__(self, latent: int, *, learned: bool = False) -> None:
        super().__init__(latent=latent)
        self.logits = (nn.Parameter if learned else nn.Buffer)(torch.zeros(latent))

    def forward(self, *context: Tensor) -> dist.OneHotCategorical:
        """Return p(z), which ignores any context."""
        return dist.OneHotCategorical(logits=self.logits)
