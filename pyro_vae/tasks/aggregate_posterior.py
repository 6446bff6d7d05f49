"""A prior fitted after training to where the data are in latent space."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Mixture
from pyro_vae.programs.program import Program
from pyro_vae.tasks.latents import each_batch

__all__ = ["AggregatePosterior"]


class AggregatePosterior(Conditional):
    r"""A mixture of normals fitted to latents of data (ex-post density estimation).

    .. math:: p(z) = \sum_k \pi_k \mathcal N(z; m_k, S_k) \approx \frac1N \sum_n q(z \mid x_n)

    The posterior of a trained VAE, averaged over the data, is not its prior; the decoder has learned where the
    posterior is. This density is a prior like any other: draw from it by ``generate(vae, n, prior=...)``, or build a
    ``VAE`` with it to evaluate.

    References:
        From variational to deterministic autoencoders (Ghosh et al., 2020), https://arxiv.org/abs/1903.12436

    Args:
        program: a trained VAE with a vector of latents
        x: its training data: rows, or a tuple ``(x, context)``, as in ``fit``
        components: how many normals, each with a covariance matrix
        draws: of the latents of each datum
        seed: of draws and start

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the data do not fit the program, there are fewer than the components, or the latents are not
            vectors of real numbers.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> fitted = AggregatePosterior(toy.program, toy.draw(200), components=2)
        >>> fitted().event_shape
        torch.Size([2])
    """

    def __init__(self, program: Program, x: Any, *, components: int = 10, draws: int = 1, seed: int = 0) -> None:
        super().__init__()
        try:
            from sklearn.mixture import GaussianMixture
        except ImportError as error:
            raise ImportError("AggregatePosterior needs scikit-learn: pip install 'pyro-vae[sklearn]'") from error
        check_int("components", components)
        z = encoded(program, x, draws, seed)
        if len(z) < components:
            raise ValueError(f"components: expected at most {len(z)}, one a latent drawn, got {components}")
        found = GaussianMixture(components, random_state=seed, reg_covar=1e-6).fit(z.double().cpu().numpy())
        tril = torch.linalg.cholesky(torch.as_tensor(found.covariances_))
        self.register_buffer("logits", torch.as_tensor(found.weights_).log().to(z))
        self.register_buffer("loc", torch.as_tensor(found.means_).to(z))
        self.register_buffer("scale_tril", tril.to(z))

    def forward(self, *context: Tensor) -> Mixture:
        """Return p(z); any context is left aside."""
        return Mixture(self.logits, dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril))


def encoded(program: Program, x: Any, draws: int, seed: int) -> Tensor:
    """Return draws of the posterior of each datum, (n * draws, latent)."""
    check_int("draws", draws)
    z = each_batch(program, x, lambda vae, z, *batch: z.flatten(0, 1), draws=draws, seed=seed)
    if z.dim() != 2:
        raise ValueError(f"program: expected latents that are vectors, got shape {tuple(z.shape[1:])}")
    return z
