"""Base of flow priors: a standard normal pushed through invertible layers.

A subclass calls the constructor with a function that builds one layer, a map from z towards the standard normal u.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.flow import Flow, Layer

__all__ = ["FlowPrior"]


class FlowPrior(Conditional):
    r"""A standard normal pushed through the inverses of layers.

    .. math:: \log p(z) = \log \mathcal N(u; 0, I) + \sum_l \log \lvert \det \partial f_l \rvert, \qquad
              u = f_L \circ \dots \circ f_1(z)

    Args:
        latent: number of latents
        build_layer: returns a new layer
        layers: number of layers
        context: width of the context, which each layer sees
        min_latent: smallest valid number of latents
    """

    def __init__(
        self, latent: int, build_layer: Callable[[], Layer], *, layers: int, context: int, min_latent: int = 1
    ) -> None:
        super().__init__(latent=latent, context=context, min_latent=min_latent)
        check_int("layers", layers)
        self.layers = nn.ModuleList(build_layer() for _ in range(layers))
        self.loc = nn.Buffer(torch.zeros(latent), persistent=False)
        self.scale = nn.Buffer(torch.ones(latent), persistent=False)

    def forward(self, *context: Tensor) -> Flow:
        """Return p(z), or p(z given c)."""
        context = context if self.context else ()
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
        base = dist.Normal(self.loc, self.scale).expand((*batch, len(self.loc))).to_event(1)
        return Flow(base, self.layers, context)
