"""Models with exact answers, to test estimators and evaluators against."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import Normal
from pyro_vae.nets import MLP
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs import VAE
from pyro_vae.scales import Shared, inverse_positive

__all__ = ["LinearGaussian"]


class LinearGaussian:
    r"""A linear VAE with exact evidence, posterior and bound: probabilistic PCA.

    .. math:: z \sim \mathcal N(0, I_q), \quad x \mid z \sim \mathcal N(W z + \mu, \sigma^2 I_d), \quad
              q(z \mid x) = \mathcal N(A x + b, \operatorname{diag} t^2)

    The columns of W are orthogonal, so that a mean-field guide can represent the exact posterior
    :math:`\mathcal N(M^{-1} W^\top (x - \mu), \sigma^2 M^{-1})` with :math:`M = W^\top W + \sigma^2 I`. The program
    starts there: its bound is then the evidence.

    References:
        Probabilistic principal component analysis (Tipping and Bishop, 1999);
        Don't blame the ELBO! (Lucas et al., 2019), https://arxiv.org/abs/1911.02469

    Args:
        features: d
        latent: q
        sigma: standard deviation of the noise
        off: standard deviation of a random shift of the guide's weights away from the exact posterior
        seed: seed of W, mu and the shift

    Attributes:
        program: the VAE, in float64, made of parts of this library
        decoder: the layer of W and mu
        encoder: the layer of A, b and t
        scale: sigma, a learned parameter

    Example:
        >>> toy = LinearGaussian(off=0.1)
        >>> x = toy.draw(4)
        >>> bool((toy.elbo(x) < toy.log_evidence(x)).all())
        True
    """

    def __init__(
        self,
        features: int = 5,
        latent: int = 2,
        *,
        sigma: float = 0.6,
        off: float = 0.0,
        seed: int = 0,
    ) -> None:
        linear = functools.partial(MLP, hidden=())
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            self.scale = Shared(sigma)
            self.program = VAE(
                prior=StandardNormal(latent),
                likelihood=Normal(latent, (features,), net=linear, scale=self.scale),
                posterior=MeanFieldNormal((features,), latent, net=linear),
            ).double()
        self.decoder, self.encoder = linear_layer(self.program.likelihood), linear_layer(self.program.posterior)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        basis, _ = torch.linalg.qr(normal(features, latent))
        weight = basis * torch.linspace(1.5, 0.8, latent, dtype=torch.float64)
        with torch.no_grad():
            self.decoder.weight.copy_(weight)
            self.decoder.bias.copy_(normal(features))
            self.scale.raw.copy_(inverse_positive(torch.tensor(sigma, dtype=torch.float64)))
            precision = weight.T @ weight / sigma**2 + torch.eye(latent, dtype=torch.float64)
            mean_of_x = torch.linalg.solve(precision, weight.T / sigma**2)
            # the encoder returns (mean, raw scale): two rows of `latent` outputs
            self.encoder.weight.copy_(torch.cat([mean_of_x, torch.zeros_like(mean_of_x)]))
            raw = inverse_positive(precision.inverse().diagonal().sqrt())
            self.encoder.bias.copy_(torch.cat([-mean_of_x @ self.decoder.bias, raw]))
            self.encoder.weight.add_(off * normal(*self.encoder.weight.shape))
            self.encoder.bias.add_(off * normal(*self.encoder.bias.shape))

    def draw(self, num_samples: int, seed: int = 1) -> Tensor:
        """Return samples of the model, of shape ``(num_samples, features)``; equal seeds give equal samples."""
        return self.program.sample(num_samples, seed=seed)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return the exact log p(x) in nats per example; differentiable in the model's parameters."""
        w, sigma = self.decoder.weight, self.scale()
        eye = torch.eye(len(w), dtype=w.dtype)
        return torch.distributions.MultivariateNormal(self.decoder.bias, w @ w.T + sigma**2 * eye).log_prob(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean ``(n, latent)`` and covariance ``(latent, latent)`` of the exact posterior."""
        w, sigma = self.decoder.weight, self.scale()
        m = w.T @ w + sigma**2 * torch.eye(w.shape[1], dtype=w.dtype)
        return torch.linalg.solve(m, w.T @ (x - self.decoder.bias).T).T, sigma**2 * torch.linalg.inv(m)

    def elbo(self, x: Tensor, beta: float = 1.0) -> Tensor:
        """Return the exact bound in nats per example; differentiable in all parameters."""
        w, sigma = self.decoder.weight, self.scale()
        q = self.program.encode(x).base_dist
        spread = (w.square() * q.variance.unsqueeze(-2)).sum((-1, -2))
        error = (x - q.mean @ w.T - self.decoder.bias).square().sum(-1) + spread
        reconstruction = -0.5 * len(w) * torch.log(2 * math.pi * sigma**2) - error / (2 * sigma**2)
        kl = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum(-1)
        return reconstruction - beta * kl


def linear_layer(part: Conditional) -> nn.Linear:
    """Return the only linear layer of a part."""
    return next(module for module in part.modules() if isinstance(module, nn.Linear))
