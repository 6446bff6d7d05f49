"""The Bernoulli prior, for binary latents."""

from __future__ import annotations

import math

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional

__all__ = ["Bernoulli"]


class Bernoulli(Conditional):
    r"""Independent binary latents.

    .. math:: p(z) = \prod_j \pi_j^{z_j} (1 - \pi_j)^{1 - z_j}

    References:
        Neural variational inference and learning in belief networks (Mnih and Gregor, 2014),
        https://arxiv.org/abs/1402.0030

    Args:
        latent: number of binary latents
        probs: probability of a 1, or its initial value if it is learned
        learned: learn the logit of each latent

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``probs`` is not between 0 and 1.

    Example:
        >>> Bernoulli(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int, *, probs: float = 0.5, learned: bool = False) -> None:
        super().__init__(latent=latent)
        if not 0 < probs < 1:
            raise ValueError(f"probs: expected a probability between 0 and 1, got {probs}")
        hold = nn.Parameter if learned else nn.Buffer
        self.logits = hold(torch.full((latent,), math.log(probs) - math.log1p(-probs)))

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z), which ignores any context."""
        return dist.Bernoulli(logits=self.logits).to_event(1)
