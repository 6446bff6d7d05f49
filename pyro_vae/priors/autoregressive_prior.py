"""The autoregressive prior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.flow import Flow
from pyro_vae.distributions.masked_affine import MaskedAffine

__all__ = ["AutoregressivePrior"]


class AutoregressivePrior(Conditional):
    r"""Each latent is normal given the latents before it, by one masked network.

    .. math:: p(z) = \prod_j \mathcal N\big(z_j; \mu_j(z_{<j}), \sigma_j(z_{<j})^2\big)

    A density needs one pass of the network, a draw (latent after latent) ``latent`` passes. Several of these
    on top of each other are MaskedAutoregressiveFlow.

    References:
        MADE: masked autoencoder for distribution estimation (Germain et al., 2015),
        https://arxiv.org/abs/1502.03509;
        Variational lossy autoencoder (Chen et al., 2017), https://arxiv.org/abs/1611.02731

    Args:
        latent: number of latents
        hidden: width of each hidden layer of the masked network
        context: how many numbers of context (labels) one datum brings
        limit: bound of :math:`\lvert \log \sigma \rvert`

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Example:
        >>> AutoregressivePrior(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self, latent: int, *, hidden: Sequence[int] = (256, 256), context: int = 0, limit: float = 7.0
    ) -> None:
        super().__init__()
        self.context = context
        self.layers = nn.ModuleList([MaskedAffine(latent, hidden=hidden, context=context, limit=limit)])
        self.loc = nn.Buffer(torch.zeros(latent), persistent=False)
        self.scale = nn.Buffer(torch.ones(latent), persistent=False)

    def forward(self, *context: Tensor) -> Flow:
        """Return p(z), or p(z given c)."""
        context = context if self.context else ()
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
        return Flow(
            dist.Normal(self.loc, self.scale).expand((*batch, len(self.loc))).to_event(1), self.layers, context
        )
