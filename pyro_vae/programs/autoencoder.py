"""The deterministic autoencoder, a baseline for VAEs."""

from __future__ import annotations

from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import Normal
from pyro_vae.nets.contract import NetError
from pyro_vae.programs.checks import check_context, check_entries, check_tensor
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
        z = self.encoder(x)
        found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        expected = getattr(getattr(self.likelihood, "net", None), "in_shape", found[1:])
        if not isinstance(z, Tensor) or found != (x.shape[0], *expected):
            raise ValueError(
                f"encoder: expected an output of shape {(len(x), *expected)}, one row per example, got {found} from "
                f"{type(self.encoder).__name__}. Return one tensor of the latents that the likelihood takes"
            )
        return z

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
            self.encoder(x[:1])
        except (RuntimeError, ValueError) as error:
            if isinstance(error, NetError) and error.given is None:
                raise
            raise ValueError(f"x: the encoder does not accept shape {tuple(x.shape)}: {error}") from error
        fn = self.decode_posterior(x[:1])
        check_entries(x, fn, self.likelihood, self.dtype)
