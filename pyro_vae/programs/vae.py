"""The variational autoencoder: a prior, a likelihood and a posterior as one Pyro program."""

from __future__ import annotations

from typing import Any

import pyro
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import hide_missing, readable
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, Program

__all__ = ["VAE"]


class VAE(Program):
    r"""One latent z per example, sampled from the prior and decoded by the likelihood.

    .. math:: p(x) = \int p(x \mid z)\, p(z)\, dz, \qquad q(z \mid x) \approx p(z \mid x)

    All three parts get the context (labels, covariates). With parts built with ``context=WIDTH`` it is a conditional
    VAE, :math:`p(x \mid z, c)\, p(z \mid c)`.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        prior: p(z)
        likelihood: p(x given z), with the decoder inside
        posterior: q(z given x), with the encoder inside
        missing: whether entries of x may be missing (NaN). They do not contribute to the bound or its gradient, and
            are 0 in the input of a posterior without the attribute ``takes_missing``

    Raises:
        TypeError: a part is not an instance of a Conditional.

    Example:
        >>> import torch, pyro, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (8, 8)),
        ...     posterior=pv.posteriors.MeanFieldNormal((8, 8), 2),
        ... )
        >>> svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())
        >>> loss = svi.step(torch.ones(5, 8, 8))
        >>> vae.sample(7).shape
        torch.Size([7, 8, 8])
    """

    def __init__(
        self, *, prior: Conditional, likelihood: Conditional, posterior: Conditional, missing: bool = False
    ) -> None:
        super().__init__()
        for name, part in (("prior", prior), ("likelihood", likelihood), ("posterior", posterior)):
            if not isinstance(part, Conditional):
                raise TypeError(f"{name}: expected a Conditional built with its arguments, got {part!r}")
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        self.missing = missing

    @classmethod
    def example(cls, **options: Any) -> VAE:
        """Build a small instance, with further ``options`` of the constructor."""
        likelihood, posterior = Normal(2, (4,), net=SMALL), MeanFieldNormal((4,), 2, net=SMALL)
        return cls(prior=StandardNormal(2), likelihood=likelihood, posterior=posterior, **options)

    @property
    def context(self) -> int:
        """Number of context values per example."""
        return max(getattr(part, "context", 0) for part in self.children())

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample z from the prior and observe ``x`` under the likelihood."""
        announce(prior=self.prior, likelihood=self.likelihood)
        with DataPlate(x):
            z = pyro.sample("z", self.prior(*context))
            fn = self.decode(z, *context)
            if self.missing:
                fn, x = hide_missing(fn, x)
            return observe("x", fn, x)

    def guide(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample z from the posterior of ``x``."""
        announce(posterior=self.posterior)
        with DataPlate(x):
            return pyro.sample("z", self.encode(x, *context))

    def encode(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return q(z given x) for a batch ``x`` of shape ``(n, *shape)``."""
        return self.posterior(readable(self.posterior, x) if self.missing else x, *context)

    def decode(self, z: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return p(x given z) for latents of shape ``(*batch, latent)``."""
        return self.likelihood(z, *context)

    def decode_prior(self, num_samples: int, *context: Tensor) -> TorchDistributionMixin:
        """Sample latents from the prior and return p(x given z)."""
        return self.decode(self.prior(*context).expand((num_samples,)).sample(), *context)

    def decode_posterior(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Sample latents from the posterior of ``x`` and return p(x given z)."""
        return self.decode(self.encode(x, *context).sample(), *context)

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if shape, type, context or values of the data do not fit."""
        super().check_data(x, *context)  # x is all that the model observes
