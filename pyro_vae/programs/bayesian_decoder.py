"""A VAE that is unsure of the weights of its decoder."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.func import functional_call

from pyro_vae.conditional import Conditional
from pyro_vae.programs.program import announce, observe
from pyro_vae.programs.vae import VAE
from pyro_vae.scales import inverse_positive, positive

__all__ = ["BayesianDecoder"]


class BayesianDecoder(VAE):
    r"""A VAE whose decoder has a distribution over its weights, shared by all data.

    .. math:: p(W)\, \prod_{n=1}^{N} \int p(z_n)\, p(x_n \mid z_n, W)\, dz_n, \qquad
              q(W) = \mathcal N(\mu, \operatorname{diag} \sigma^2), \quad p(W) = \mathcal N(0, s^2 I)

    The latent ``weights`` stands outside the plate of the data. A batch of B data is weighed by N / B against its
    divergence, which therefore needs N. Under any estimator the weights are drawn once a step, also with many
    particles: a mean over weights within the logarithm of each datum would be no bound on the evidence of all.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), appendix F, https://arxiv.org/abs/1312.6114;
        Weight uncertainty in neural networks (Blundell et al., 2015), https://arxiv.org/abs/1505.05424

    Args:
        prior: p(z)
        likelihood: p(x given z); the weights of its network ``net`` become latents
        posterior: q(z given x)
        size: N, the number of training data
        spread: s, standard deviation of a weight under the prior
        start: standard deviation of a weight under the guide where learning starts, around its initial value

    Raises:
        ValueError: size, spread or start is not positive, or the likelihood has no network ``net``.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = BayesianDecoder(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (8, 8)),
        ...     posterior=pv.posteriors.MeanFieldNormal((8, 8), 2),
        ...     size=1000,
        ... )
        >>> vae.sample(7).shape
        torch.Size([7, 8, 8])
    """

    def __init__(
        self,
        *,
        prior: Conditional,
        likelihood: Conditional,
        posterior: Conditional,
        size: int,
        spread: float = 1.0,
        start: float = 0.01,
    ) -> None:
        super().__init__(prior=prior, likelihood=likelihood, posterior=posterior)
        for name, value in (("size", size), ("spread", spread), ("start", start)):
            if not value > 0:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        net = getattr(likelihood, "net", None)
        if not isinstance(net, nn.Module) or not list(net.parameters()):
            raise ValueError(
                f"likelihood: {type(likelihood).__name__} has no network `net` whose weights could be latents"
            )
        self.size, self.spread = size, spread
        self.shapes = {f"net.{name}": p.shape for name, p in net.named_parameters()}
        values = torch.cat([p.detach().flatten() for p in net.parameters()])
        # what the module holds itself is not used and not trained any more
        net.requires_grad_(False)
        self.weights = WeightPosterior(values, start)

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Draw the weights, then z for each datum, and observe ``x``."""
        announce(prior=self.prior, likelihood=self.likelihood)
        loc = torch.zeros_like(self.weights.loc)
        weights = pyro.sample("weights", dist.Normal(loc, torch.full_like(loc, self.spread)).to_event(1))
        with self.plate(x):
            z = pyro.sample("z", self.prior(*context))
            return observe("x", self.given(weights, z, *context), x)

    def guide(self, x: Tensor, *context: Tensor) -> Tensor:
        """Draw the weights, then z from the posterior of ``x``."""
        announce(weights=self.weights, posterior=self.posterior)
        pyro.sample("weights", self.weights())
        with self.plate(x):
            return pyro.sample("z", self.encode(x, *context))

    def plate(self, x: Tensor) -> Any:
        """Return the plate of all data, of which ``x`` is a part."""
        rows = torch.arange(len(x), device=x.device)
        return pyro.plate("data", max(self.size, len(x)), subsample=rows, dim=-1)

    def given(self, weights: Tensor, z: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return p(x given z, W)."""
        parts = weights.split([shape.numel() for shape in self.shapes.values()], -1)
        named = {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        return functional_call(self.likelihood, named, (z, *context))

    def decode(self, z: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return p(x given z, W) at the mean of the weights."""
        return self.given(self.weights.loc, z, *context)


class WeightPosterior(nn.Module):
    """Independent normal weights."""

    def __init__(self, values: Tensor, start: float) -> None:
        super().__init__()
        self.loc = nn.Parameter(values)
        self.raw = nn.Parameter(inverse_positive(torch.full_like(values, start)))

    def forward(self) -> dist.Independent:
        """Return q(W)."""
        return dist.Normal(self.loc, positive(self.raw)).to_event(1)
