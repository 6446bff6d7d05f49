"""The aggregate posterior: mutual information, marginal divergence and total correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from pyro_vae.evaluation.over import BUDGET
from pyro_vae.trace import Site
from pyro_vae.trace.divergence import factors

__all__ = ["Information", "information"]


@dataclass(frozen=True)
class Information:
    r"""Decomposition of the divergence from the prior (in nats), with :math:`q(z) = \frac1M \sum_m q(z \mid x_m)`.

    .. math:: \underbrace{\mathbb E_x \mathrm{KL}[q(z \mid x) \| p(z)]}_{\text{rate}} =
              \underbrace{I_q(x; z)}_{\text{mutual information}}
              + \underbrace{\mathrm{KL}[q(z) \| p(z)]}_{\text{marginal}},
              \quad \mathrm{KL}[q(z) \| p(z)] =
              \underbrace{\mathrm{KL}[q(z) \| \textstyle\prod_j q(z_j)]}_{\text{total correlation}}
              + \sum_j \mathrm{KL}[q(z_j) \| p(z_j)]

    Attributes:
        mutual_information: at most the logarithm of ``num_examples``
        marginal_kl: divergence of the aggregate posterior from the prior
        total_correlation: NaN unless the posterior is a normal or a product of one-dimensional densities
        dimension_wise_kl: sum of the divergences of single dimensions; also NaN unless the prior is a product
        num_examples: M
        missing: why a number is NaN, or empty
    """

    mutual_information: float = math.nan
    marginal_kl: float = math.nan
    total_correlation: float = math.nan
    dimension_wise_kl: float = math.nan
    num_examples: int = 0
    missing: str = ""


def information(site: Site) -> Information:
    """Measure the aggregate posterior of a local latent, sampled once per example given x alone."""
    q, p, z = site.guide["fn"], site.model["fn"], site.guide["value"]
    m = len(z)
    if q.batch_shape != (m,):
        return Information(missing="the site is in a second plate")
    try:
        own = q.log_prob(z)
        joint = aggregate(q, z)
        prior = p.log_prob(z)
    except NotImplementedError:
        return Information(missing=f"{type(q).__name__} has a density at its own samples only")
    mutual, marginal = float((own - joint).mean()), float((joint - prior).mean())
    single, single_prior = margins(q), factors(p)
    if single is None:
        return Information(mutual, marginal, num_examples=m, missing="the posterior has no density of one dimension")
    each = aggregate(single, z)
    total = float((joint - each).mean())
    if single_prior is None:
        return Information(mutual, marginal, total, num_examples=m, missing="the prior is not a product of dimensions")
    wise = each - single_prior.log_prob(z).reshape(m, -1).sum(-1)
    return Information(mutual, marginal, total, float(wise.mean()), m)


def margins(q: Any) -> Any:
    """Return the densities of the single dimensions of a posterior, or None if they have no closed form."""
    if isinstance(q, MultivariateNormal):
        return Normal(q.mean, q.variance.sqrt())
    return factors(q)


def aggregate(q: Any, z: Tensor) -> Tensor:
    """Return the log-density of the mixture of M posteriors at M points ``(M, *event)``.

    With posteriors of batch shape ``(M, *dimensions)`` each dimension is a mixture of its own; they are summed.
    """
    m = len(z)
    size = max(1, BUDGET // (m * max(1, z[0].numel())))
    rows = [q.log_prob(part.unsqueeze(1)).logsumexp(1) - math.log(m) for part in z.split(size)]
    return torch.cat(rows).reshape(m, -1).sum(-1).double()
