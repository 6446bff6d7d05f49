"""The masked autoregressive flow prior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_vae.distributions.flow import Layer
from pyro_vae.distributions.masked_affine import MaskedAffine
from pyro_vae.priors.flow_prior import FlowPrior

__all__ = ["MaskedAutoregressiveFlow"]


class MaskedAutoregressiveFlow(FlowPrior):
    r"""MAF: a standard normal pushed through affine autoregressive layers.

    .. math:: u_j = (z_j - \mu_j(z_{<j}))\, e^{-s_j(z_{<j})}, \qquad
              \log p(z) = \log \mathcal N(u; 0, I) - \sum s

    The order of the latents is reversed after each layer. A density takes one pass, a sample ``latent`` passes per
    layer.

    References:
        Masked autoregressive flow for density estimation (Papamakarios et al., 2017),
        https://arxiv.org/abs/1705.07057

    Args:
        latent: number of latents
        layers: number of layers
        hidden: width of each hidden layer of the masked networks
        context: width of the context (labels, covariates)
        limit: bound of the log-scale s of a layer, which keeps densities finite far from the data

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ValueError: ``layers`` is below 1, or there is no hidden layer.

    Example:
        >>> MaskedAutoregressiveFlow(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        latent: int,
        *,
        layers: int = 5,
        hidden: Sequence[int] = (256, 256),
        context: int = 0,
        limit: float = 3.0,
    ) -> None:
        super().__init__(
            latent,
            lambda: Reversed(MaskedAffine(latent, hidden=hidden, context=context, limit=limit)),
            layers=layers,
            context=context,
        )


class Reversed(Layer):
    """A layer, followed by a reversal of the order of its coordinates."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and the log-determinant."""
        u, log_det = self.layer(z, *context)
        return u.flip(-1), log_det

    def inverse(self, u: Tensor, *context: Tensor) -> Tensor:
        """Return z."""
        return self.layer.inverse(u.flip(-1), *context)
