"""The mixture-of-normals prior."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Mixture
from pyro_vae.scales import inverse_positive, positive

__all__ = ["MixtureOfNormals"]


class MixtureOfNormals(Conditional):
    r"""A mixture of normals with learned weights, means and covariances.

    .. math:: p(z) = \sum_{k=1}^{K} \pi_k \, \mathcal N(z; m_k, S_k)

    Each component is a joint distribution of all latents, with a diagonal or a full covariance.

    References:
        Deep unsupervised clustering with Gaussian mixture variational autoencoders (Dilokthanakul et al., 2016),
        https://arxiv.org/abs/1611.02648;
        Variational deep embedding (Jiang et al., 2017), https://arxiv.org/abs/1611.05148

    Args:
        latent: number of latents
        num_components: number of components K
        full: give each component a full covariance instead of a diagonal one
        init_std: std of the random initial means; with 0, all components would stay the same

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``num_components`` is below 1.

    Example:
        >>> MixtureOfNormals(3, num_components=4, full=True)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int, *, num_components: int = 10, full: bool = False, init_std: float = 1.0) -> None:
        super().__init__(latent=latent)
        check_int("num_components", num_components)
        self.full = full
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.loc = nn.Parameter(init_std * torch.randn(num_components, latent))
        raw = inverse_positive(torch.ones(num_components, latent))
        # for a full covariance: the Cholesky factor, with its diagonal before `positive`
        self.raw = nn.Parameter(torch.diag_embed(raw) if full else raw)

    def forward(self, *context: Tensor) -> Mixture:
        """Return p(z), which ignores any context."""
        if self.full:
            scale = self.raw.tril(-1) + torch.diag_embed(positive(self.raw.diagonal(dim1=-2, dim2=-1)))
            components = dist.MultivariateNormal(self.loc, scale_tril=scale)
        else:
            components = dist.Normal(self.loc, positive(self.raw)).to_event(1)
        return Mixture(self.logits, components)
