"""Models with exact answers, to hold estimators and evaluators to."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.likelihoods import Normal
from pyro_vae.nets import MLP
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs import VAE
from pyro_vae.scales import Shared, inverse_positive

__all__ = ["LinearGaussian"]


class LinearGaussian:
    r"""A linear VAE, whose evidence, posterior and bound are known exactly (probabilistic PCA).

    .. math:: z \sim \mathcal N(0, I_q), \quad x \mid z \sim \mathcal N(W z + \mu, \sigma^2 I_d), \quad
              q(z \mid x) = \mathcal N(A x + b, \operatorname{diag} t^2)

    The columns of W are orthogonal, so that the exact posterior,
    :math:`\mathcal N(M^{-1} W^\top (x - \mu), \sigma^2 M^{-1})` with :math:`M = W^\top W + \sigma^2 I`, is one that
    a mean-field guide can reach: the program starts there, and its bound is then the evidence.

    References:
        Probabilistic principal component analysis (Tipping and Bishop, 1999);
        Don't blame the ELBO! (Lucas et al., 2019), https://arxiv.org/abs/1911.02469

    Args:
        features: d
        latent: q
        sigma: standard deviation of the noise
        off: how far the guide is moved away from the exact posterior (0: not at all)
        seed: of W, mu and the move

    Attributes:
        program: the VAE, in float64, made from parts of this library

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
            self.program = VAE(
                prior=StandardNormal(latent),
                likelihood=Normal(latent, (features,), net=linear, scale=Shared(sigma)),
                posterior=MeanFieldNormal((features,), latent, net=linear),
            ).double()

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        basis, _ = torch.linalg.qr(normal(features, latent))
        weight = basis * torch.linspace(1.5, 0.8, latent, dtype=torch.float64)
        with torch.no_grad():
            self.decoder.weight.copy_(weight)
            self.decoder.bias.copy_(normal(features))
            self.program.likelihood.scale.raw.copy_(inverse_positive(torch.tensor(sigma, dtype=torch.float64)))
            precision = weight.T @ weight / sigma**2 + torch.eye(latent, dtype=torch.float64)
            mean_of_x = torch.linalg.solve(precision, weight.T / sigma**2)
            # the encoder makes (mean, raw scale): two rows of `latent` outputs
            self.encoder.weight.copy_(torch.cat([mean_of_x, torch.zeros_like(mean_of_x)]))
            raw = inverse_positive(precision.inverse().diagonal().sqrt())
            self.encoder.bias.copy_(torch.cat([-mean_of_x @ self.decoder.bias, raw]))
            self.encoder.weight += off * normal(*self.encoder.weight.shape)
            self.encoder.bias += off * normal(*self.encoder.bias.shape)

    @property
    def decoder(self) -> torch.nn.Linear:
        """The layer of W and mu."""
        return self.program.likelihood.net.body[0]

    @property
    def encoder(self) -> torch.nn.Linear:
        """The layer of A, b and t."""
        return self.program.posterior.net.body[0]

    def draw(self, n: int, seed: int = 1) -> Tensor:
        """Draw ``n`` data of shape ``(n, features)`` from the model, always the same ones for a seed."""
        with fork_rng(list(self.program.parameters()), seed):
            return self.program.sample(n)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Return the exact log p(x) of each datum, differentiable by the model's parameters."""
        w, sigma = self.decoder.weight, self.program.likelihood.scale()
        eye = torch.eye(len(w), dtype=w.dtype)
        return torch.distributions.MultivariateNormal(self.decoder.bias, w @ w.T + sigma**2 * eye).log_prob(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean ``(n, latent)`` and covariance ``(latent, latent)`` of the exact posterior."""
        w, sigma = self.decoder.weight, self.program.likelihood.scale()
        m = w.T @ w + sigma**2 * torch.eye(w.shape[1], dtype=w.dtype)
        return torch.linalg.solve(m, w.T @ (x - self.decoder.bias).T).T, sigma**2 * torch.linalg.inv(m)

    def elbo(self, x: Tensor, beta: float = 1.0) -> Tensor:
        """Return the exact bound of each datum, differentiable by all parameters."""
        w, sigma = self.decoder.weight, self.program.likelihood.scale()
        q = self.program.encode(x).base_dist
        spread = (w.square() * q.variance.unsqueeze(-2)).sum((-1, -2))
        error = (x - q.mean @ w.T - self.decoder.bias).square().sum(-1) + spread
        reconstruction = -0.5 * len(w) * torch.log(2 * math.pi * sigma**2) - error / (2 * sigma**2)
        kl = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum(-1)
        return reconstruction - beta * kl
