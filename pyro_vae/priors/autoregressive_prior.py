"""The autoregressive prior."""

from __future__ import annotations

from collections.abc import Sequence

from pyro_vae.distributions.masked_affine import MaskedAffine
from pyro_vae.priors.flow_prior import FlowPrior

__all__ = ["AutoregressivePrior"]


class AutoregressivePrior(FlowPrior):
    r"""Autoregressive normals: each latent is normal given those before it, by one masked network.

    .. math:: p(z) = \prod_j \mathcal N\big(z_j; \mu_j(z_{<j}), \sigma_j(z_{<j})^2\big)

    A density takes one pass of the network, a sample ``latent`` passes. MaskedAutoregressiveFlow stacks several of
    these.

    References:
        MADE: masked autoencoder for distribution estimation (Germain et al., 2015),
        https://arxiv.org/abs/1502.03509;
        Variational lossy autoencoder (Chen et al., 2017), https://arxiv.org/abs/1611.02731

    Args:
        latent: number of latents
        hidden: width of each hidden layer of the masked network
        context: width of the context (labels, covariates)
        limit: bound of :math:`\lvert \log \sigma \rvert`

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ValueError: there is no hidden layer.

    Example:
        >>> AutoregressivePrior(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self, latent: int, *, hidden: Sequence[int] = (256, 256), context: int = 0, limit: float = 7.0
    ) -> None:
        super().__init__(
            latent,
            lambda: MaskedAffine(latent, hidden=hidden, context=context, limit=limit),
            layers=1,
            context=context,
        )
