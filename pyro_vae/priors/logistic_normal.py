"""The logistic-normal prior, for proportions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import LogisticNormal as Family
from pyro_vae.scales import check_scale, inverse_positive, positive

__all__ = ["LogisticNormal"]


class LogisticNormal(Conditional):
    r"""Proportions that are the softmax of independent normals, as a density on the simplex.

    .. math:: z = \operatorname{softmax}(h), \qquad h_k \sim \mathcal N(\mu_k, \sigma_k^2)

    Given a concentration :math:`\alpha`, the scale is that of the Laplace approximation of a symmetric
    Dirichlet, :math:`\sigma^2 = \frac{1}{\alpha} (1 - \frac{1}{K})`, which :meth:`like_dirichlet` takes.

    References:
        Logistic-normal distributions: some properties and uses (Atchison and Shen, 1980),
        https://doi.org/10.1093/biomet/67.2.261;
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Args:
        latent: number of proportions K
        scale: :math:`\sigma` of the normals; where learning starts if it is learned
        learned: learn :math:`\mu` and :math:`\sigma`, of one number a proportion each

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Raises:
        ValueError: the scale is not positive and finite.

    Example:
        >>> LogisticNormal(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int, *, scale: float = 1.0, learned: bool = False) -> None:
        super().__init__()
        check_scale("scale", scale)
        hold = nn.Parameter if learned else nn.Buffer
        self.loc = hold(torch.zeros(latent))
        self.raw = hold(inverse_positive(torch.full((latent,), float(scale))))

    @classmethod
    def like_dirichlet(cls, latent: int, *, concentration: float = 1.0, learned: bool = False) -> LogisticNormal:
        """Return the prior that approximates a symmetric Dirichlet of at least two proportions."""
        check_scale("concentration", concentration)
        if latent < 2:
            raise ValueError(f"latent: expected at least two proportions, got {latent}")
        return cls(latent, scale=math.sqrt((1 - 1 / latent) / concentration), learned=learned)

    def forward(self, *context: Tensor) -> Family:
        """Return p(z); any context is left aside."""
        return Family(self.loc, positive(self.raw))
