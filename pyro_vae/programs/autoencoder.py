"""A deterministic autoencoder: the baseline that VAEs are compared with."""

from __future__ import annotations

from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.programs.checks import check_context, check_tensor, check_values
from pyro_vae.programs.program import DataPlate, Program, announce, evaluating, mean_or_draw, observe

__all__ = ["Autoencoder"]


class Autoencoder(Program):
    r"""A code without a distribution: the likelihood of x given what the encoder makes of x.

    .. math:: \log p(x \mid z = \mathrm{encoder}(x))

    There is no prior and no divergence, so that the loss is no bound on an evidence, codes fill the space as they like
    and there is nothing to sample from: what a VAE adds.

    References:
        Reducing the dimensionality of data with neural networks (Hinton and Salakhutdinov, 2006),
        https://doi.org/10.1126/science.1127647

    Args:
        encoder: a module from ``(n, *shape)`` to ``(n, latent)``, such as ``nets.MLP(shape, (latent,))``
        likelihood: p(x given z)

    Example:
        >>> import torch, pyro_vae as pv
        >>> ae = Autoencoder(encoder=pv.nets.MLP((8, 8), (2,)), likelihood=pv.likelihoods.Normal(2, (8, 8)))
        >>> ae.reconstruct(torch.zeros(5, 8, 8)).shape
        torch.Size([5, 8, 8])
    """

    def __init__(self, *, encoder: nn.Module, likelihood: Conditional) -> None:
        super().__init__()
        self.encoder, self.likelihood = encoder, likelihood

    def model(self, x: Tensor) -> Tensor:
        """Observe ``x`` given its code."""
        announce(encoder=self.encoder, likelihood=self.likelihood)
        with DataPlate(x):
            return observe("x", self.likelihood(self.encoder(x)), x)

    def guide(self, x: Tensor) -> Any:
        """Draw nothing: the code is no random variable."""

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of ``x``, of shape ``(n, latent)``."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> TorchDistributionMixin:
        """Return p(x given z) for codes of shape ``(*batch, latent)``."""
        return self.likelihood(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the mean of p(x given its code), of the shape of ``x``."""
        with evaluating(self):
            return mean_or_draw(self.likelihood(self.encoder(x)))

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Refuse data that do not fit the parts."""
        dtype = self.dtype
        check_context(context, 0, len(x), dtype)
        with evaluating(self):
            p = self.likelihood(self.encoder(x[:1]))
        check_tensor("x", x, p.event_shape, dtype)
        check_values("x", x, p.support, self.likelihood)
