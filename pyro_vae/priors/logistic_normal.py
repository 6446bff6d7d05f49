"""The logistic-normal prior, for proportions."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.distributions import LogisticNormal as Family
from pyro_vae.priors.location_scale import LocationScale
from pyro_vae.scales import FLOOR, check_positive, positive

__all__ = ["LogisticNormal"]


class LogisticNormal(LocationScale):
    r"""Proportions that are the softmax of independent normals, with a density on the simplex.

    .. math:: z = \operatorname{softmax}(h), \qquad h_k \sim \mathcal N(\mu_k, \sigma_k^2)

    References:
        Logistic-normal distributions: some properties and uses (Atchison and Shen, 1980),
        https://doi.org/10.1093/biomet/67.2.261;
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Args:
        latent: number of proportions K
        scale: std :math:`\sigma` of the normals, or its initial value if it is learned
        learned: learn :math:`\mu` and :math:`\sigma` of each proportion

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Raises:
        ValueError: the scale is not a finite number above 1e-4.

    Example:
        >>> LogisticNormal(3)().event_shape
        torch.Size([3])
    """

    @classmethod
    def like_dirichlet(cls, latent: int, *, concentration: float = 1.0, learned: bool = False) -> LogisticNormal:
        r"""Return the Laplace approximation of a symmetric Dirichlet: :math:`\sigma^2 = (1 - 1/K) / \alpha`.

        Args:
            latent: number of proportions K, at least 2
            concentration: :math:`\alpha`
            learned: learn :math:`\mu` and :math:`\sigma` from there

        Returns:
            The prior.

        Raises:
            ValueError: ``latent`` is below 2, or the concentration is not a finite number above 1e-4.
        """
        check_positive("concentration", concentration, FLOOR)
        check_int("latent", latent, 2)
        return cls(latent, scale=math.sqrt((1 - 1 / latent) / concentration), learned=learned)

    def forward(self, *context: Tensor) -> Family:
        """Return p(z), which ignores any context."""
        return Family(self.loc, positive(self.raw))
