"""The affine coupling flow prior (RealNVP)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.priors.coupling import Coupling
from pyro_vae.priors.flow_prior import FlowPrior

__all__ = ["AffineCouplingFlow"]


class AffineCouplingFlow(FlowPrior):
    r"""RealNVP: a standard normal pushed through affine coupling layers.

    .. math:: u_a = z_a, \quad u_b = (z_b - \mu(z_a))\, e^{-s(z_a)}, \qquad
              \log p(z) = \log \mathcal N(u; 0, I) - \sum s

    a and b are the two halves of the latents, whose order is reversed after each layer. Densities and samples take
    one pass each.

    References:
        Density estimation using Real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803

    Args:
        latent: number of latents, at least 2
        layers: number of layers
        net: builds the network of each layer, ``net((half,), (2, rest))``
        context: width of the context (labels, covariates)
        limit: bound of the log-scale s of a layer, which keeps densities finite far from the data

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ValueError: ``latent`` is below 2, or ``layers`` below 1.

    Example:
        >>> AffineCouplingFlow(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self, latent: int, *, layers: int = 6, net: NetBuilder = MLP, context: int = 0, limit: float = 3.0
    ) -> None:
        super().__init__(
            latent, lambda: AffineCoupling(latent, net, context, limit), layers=layers, context=context, min_latent=2
        )

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> AffineCouplingFlow:
        """Build a small instance, with at least two latents."""
        return super().example(latent=max(latent, 2), shape=shape, **{"layers": 2, **options})


class AffineCoupling(Coupling):
    """A coupling layer that shifts and scales the second half."""

    def __init__(self, latent: int, net: NetBuilder, context: int, limit: float) -> None:
        super().__init__(latent, net, context, before=(2,))
        self.limit = limit

    def transform(self, mapped: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return the image of the second half and its log-slopes."""
        loc, raw = raw.unbind(-2)
        log_scale = self.limit * torch.tanh(raw / self.limit)
        if inverse:
            return loc + mapped * torch.exp(log_scale), log_scale
        return (mapped - loc) * torch.exp(-log_scale), -log_scale
