"""A VAE with a distribution over the weights of its decoder."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae._util.substitute import functional_call, substituted
from pyro_vae._util.validation import check_int, check_number
from pyro_vae.conditional import Conditional
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.vae import VAE
from pyro_vae.scales import inverse_positive, positive

__all__ = ["BayesianDecoder"]


class BayesianDecoder(VAE):
    r"""A VAE with a distribution over the weights of its decoder, which all examples share.

    .. math:: p(W)\, \prod_{n=1}^{N} \int p(z_n)\, p(x_n \mid z_n, W)\, dz_n, \qquad
              q(W) = \mathcal N(\mu, \operatorname{diag} \sigma^2), \quad p(W) = \mathcal N(0, s^2 I)

    The latent ``weights`` is outside the plate of the data. A batch of B examples is scaled by N / B, so that the KL
    divergence of the weights counts once per data set. With many particles, ``ELBO`` and others that average over
    particles sample the weights once per particle. All others sample them once per step: an average over weights
    inside the logarithm of each example is not a bound on the joint evidence.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), appendix F, https://arxiv.org/abs/1312.6114;
        Weight uncertainty in neural networks (Blundell et al., 2015), https://arxiv.org/abs/1505.05424

    Args:
        prior: p(z)
        likelihood: p(x given z); the weights of its network ``net`` become latents
        posterior: q(z given x)
        num_examples: N, the number of training examples
        prior_std: s, standard deviation of a weight under the prior
        initial_std: initial standard deviation of a weight under the guide, around its initial value

    Raises:
        ValueError: ``num_examples``, ``prior_std`` or ``initial_std`` is not positive, or the likelihood has no
            network ``net``.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = BayesianDecoder(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (8, 8)),
        ...     posterior=pv.posteriors.MeanFieldNormal((8, 8), 2),
        ...     num_examples=1000,
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
        num_examples: int,
        prior_std: float = 1.0,
        initial_std: float = 0.01,
    ) -> None:
        super().__init__(prior=prior, likelihood=likelihood, posterior=posterior)
        self.num_examples = check_int("num_examples", num_examples)
        self.prior_std = check_number("prior_std", prior_std, above=0)
        initial_std = check_number("initial_std", initial_std, above=0)
        net = getattr(likelihood, "net", None)
        if not isinstance(net, nn.Module) or not list(net.parameters()):
            raise ValueError(
                f"likelihood: expected a network `net` with weights, got {type(likelihood).__name__} without one. Use "
                "a likelihood with a network, such as Bernoulli"
            )
        self.shapes = {name: p.shape for name, p in net.named_parameters()}
        values = torch.cat([p.detach().flatten() for p in net.parameters()])
        # the network's own weights are no longer used
        net.requires_grad_(False)
        self.weights = WeightPosterior(values, initial_std)

    @classmethod
    def example(cls, **options: Any) -> VAE:
        """Build a small instance, with further ``options`` of the constructor."""
        return super().example(**{"num_examples": 1, **options})

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample the weights, then z for each example, and observe ``x``."""
        announce(prior=self.prior, likelihood=self.likelihood)
        loc = torch.zeros_like(self.weights.loc)
        weights = pyro.sample("weights", dist.Normal(loc, torch.full_like(loc, self.prior_std)).to_event(1))
        with DataPlate(x, self.num_examples):
            z = pyro.sample("z", self.prior(*context))
            return observe("x", self.decode_with(weights, z, *context), x)

    def guide(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample the weights, then z from the posterior of ``x``."""
        announce(weights=self.weights, posterior=self.posterior)
        pyro.sample("weights", self.weights())
        with DataPlate(x, self.num_examples):
            return pyro.sample("z", self.encode(x, *context))

    def decode_with(self, weights: Tensor, z: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return p(x given z, W).

        Args:
            weights: of shape ``(P,)``; or ``(*particles, 1, P)`` under a plate over particles, as in
                ``Predictive(parallel=True)``
            z: latents, of shape ``(*particles, n, latent)``
            context: labels, covariates
        """
        if weights.numel() == weights.shape[-1]:
            return functional_call(self.likelihood, self.named(weights.flatten(), "net."), (z, *context))
        net: Any = self.likelihood.net
        if any(m.training and getattr(m, "running_mean", None) is not None for m in net.modules()):
            raise ValueError(
                "likelihood: expected a network without batch statistics, as they would be those of many samples of "
                "the weights. Use vectorize_particles=False (parallel=False), or call .eval() on the program"
            )
        net.__dict__["forward"] = partial(self.forward_each, weights)
        try:
            return self.likelihood(z, *context)
        finally:
            del net.__dict__["forward"]

    def named(self, weights: Tensor, prefix: str = "") -> dict[str, Tensor]:
        """Return the weights of the network by name."""
        parts = weights.split([shape.numel() for shape in self.shapes.values()], -1)
        return {prefix + n: p.reshape(shape) for (n, shape), p in zip(self.shapes.items(), parts, strict=True)}

    def forward_each(self, weights: Tensor, z: Tensor, *context: Tensor) -> Tensor:
        """Run the network with one sample of the weights per particle, all at once."""
        net: Any = self.likelihood.net
        cut = z.dim() - len(getattr(net, "in_shape", (1,)))
        batch = torch.broadcast_shapes(weights.shape[:-1], z.shape[:cut], *(c.shape[:-1] for c in context))
        # enumerated latents are on the left of the particles: move the particles to the front
        size = weights.dim() - 2
        front, back = list(range(size)), list(range(len(batch) - 1 - size, len(batch) - 1))
        inputs = [t.expand(*batch, *t.shape[dims:]) for t, dims in ((z, cut), *((c, -1) for c in context))]
        moved = [t.movedim(back, front).flatten(0, size - 1) for t in inputs]
        particles = [batch[i] for i in back]
        each = weights.squeeze(-2).expand(*particles, -1).flatten(0, size - 1)

        parameters = dict(net.named_parameters())

        def call(weights: Tensor, *inputs: Tensor) -> Tensor:
            with substituted([net], {parameters[name]: w for name, w in self.named(weights).items()}):
                return type(net).forward(net, *inputs)

        found = torch.vmap(call, randomness="different")(each, *moved)
        return found.unflatten(0, particles).movedim(front, back)

    def decode(self, z: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return p(x given z, W) at the mean of the weights."""
        return self.decode_with(self.weights.loc, z, *context)


class WeightPosterior(nn.Module):
    """Independent normal weights."""

    def __init__(self, values: Tensor, std: float) -> None:
        super().__init__()
        self.loc = nn.Parameter(values)
        self.raw = nn.Parameter(inverse_positive(torch.full_like(values, std)))

    def forward(self) -> dist.Independent:
        """Return q(W)."""
        return dist.Normal(self.loc, positive(self.raw)).to_event(1)
