"""DIP-VAE: a penalty on the covariance of the latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.over_batch import OverBatch, divergence, only_latent, reconstruction
from pyro_vae.trace import Site, Terms
from pyro_vae.trace.divergence import factors

__all__ = ["DIP"]


class DIP(OverBatch):
    r"""The ELBO minus a penalty on the distance of a covariance from the identity (DIP-VAE).

    .. math:: \mathrm{ELBO}(x) - \lambda_{od} \sum_{d \ne e} C_{de}^2 - \lambda_d \sum_d (C_{dd} - 1)^2

    where C is the covariance over the data of the posterior mean (DIP-VAE-I), or that of the aggregate posterior,
    :math:`\operatorname{Cov}_x[\mu(x)] + \mathbb E_x[\Sigma(x)]` (DIP-VAE-II). The covariance of the batch is
    unbiased; its square is **biased** upwards, by order 1/batch.

    References:
        Variational inference of disentangled latent concepts from unlabeled observations (Kumar et al., 2018),
        https://arxiv.org/abs/1711.00848

    Args:
        of_means: use the covariance of the posterior means (I), otherwise that of the aggregate posterior (II)
        off_diagonal: :math:`\lambda_{od}`
        diagonal: :math:`\lambda_d`; the authors use ten times :math:`\lambda_{od}` for I, and the same for II
        options: ``num_particles``, ``beta`` (of the divergence alone) and ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: a negative weight; in a run, a batch of one row, several latent sites, or a posterior whose mean or
            covariance has no closed form.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> DIP(of_means=False).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(
        self, *, of_means: bool = True, off_diagonal: float = 10.0, diagonal: float = 10.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.off_diagonal = check_number("off_diagonal", off_diagonal, 0)
        self.of_means, self.diagonal = of_means, check_number("diagonal", diagonal, 0)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the bound of each example minus the penalty."""
        site = only_latent(terms, self)
        try:
            covariance = covariance_of_means(site)
            if not self.of_means:
                covariance = covariance + mean_of_covariances(site)
        except NotImplementedError as error:
            raise ValueError(
                f"posterior: DIP needs mean and covariance in closed form at site {site.name!r}: use one such as "
                "MeanFieldNormal, or BetaTC or FactorVAE"
            ) from error
        own = covariance.diagonal(dim1=-2, dim2=-1)
        others = covariance.square().sum((-2, -1)) - own.square().sum(-1)
        penalty = self.off_diagonal * others + self.diagonal * (own - 1).square().sum(-1)
        return reconstruction(terms) - beta * divergence(terms) - penalty.mean()


def covariance_of_means(site: Site) -> Tensor:
    """Return the covariance over the batch of the posterior mean, ``(particles, dims, dims)``."""
    means = site.per_row(site.guide["fn"].mean)
    centred = means - means.mean(1, keepdim=True)
    return centred.transpose(-2, -1) @ centred / (means.shape[1] - 1)


def mean_of_covariances(site: Site) -> Tensor:
    """Return the mean over the batch of the posterior covariance, ``(particles, dims, dims)``."""
    fn = site.guide["fn"]
    if factors(fn) is not None:
        return torch.diag_embed(site.per_row(fn.variance).mean(1))
    if not hasattr(fn, "covariance_matrix"):
        raise NotImplementedError
    each = site.per_row(fn.covariance_matrix, event_dim=2).mean(1)
    return each.unflatten(-1, fn.event_shape * 2)
