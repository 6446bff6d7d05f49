"""The deterministic autoencoder, a baseline for VAEs."""

from __future__ import annotations

from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import Normal
from pyro_vae.programs.checks import check_context, check_tensor, check_values
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, Program

__all__ = ["Autoencoder"]


class Autoencoder(Program):
    r"""A deterministic autoencoder: the likelihood of x given the output of the encoder.

    .. math:: \log p(x \mid z = \mathrm{encoder}(x))

    Without a prior and a KL divergence the loss is not a bound on the evidence, the latents are not regularized, and
    there is no distribution to sample new data from.

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

    @classmethod
    def example(cls) -> Autoencoder:
        """Build a small instance."""
        return cls(encoder=SMALL((4,), (2,)), likelihood=Normal(2, (4,), net=SMALL))

    def model(self, x: Tensor) -> Tensor:
        """Observe ``x`` given its encoding."""
        announce(encoder=self.encoder, likelihood=self.likelihood)
        with DataPlate(x):
            return observe("x", self.decode_posterior(x), x)

    def guide(self, x: Tensor) -> Any:
        """Do nothing, as there are no latent sites."""

    def encode(self, x: Tensor) -> Tensor:
        """Return the encodings of ``x``, of shape ``(n, latent)``."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> TorchDistributionMixin:
        """Return p(x given z) for encodings of shape ``(*batch, latent)``."""
        return self.likelihood(z)

    def decode_posterior(self, x: Tensor) -> TorchDistributionMixin:
        """Return p(x given the encoding of ``x``)."""
        return self.decode(self.encode(x))

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if shape, type or values of the data do not fit."""
        check_context(context, 0, len(x), self.dtype)
        check_tensor("x", x, x.shape[1:], self.dtype)
        try:
            fn = self.decode_posterior(x[:1])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"x: the encoder does not accept shape {tuple(x.shape)}: {error}") from error
        check_tensor("x", x, fn.event_shape, self.dtype)
        check_values("x", x, fn.support, self.likelihood)
