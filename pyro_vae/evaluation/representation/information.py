"""What the aggregate of all posteriors tells: mutual information, marginal divergence and total correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from pyro_vae.evaluation.inputs import BUDGET
from pyro_vae.trace import Site
from pyro_vae.trace.site import factors

__all__ = ["Information", "information"]


@dataclass(frozen=True)
class Information:
    r"""How the divergence from the prior splits (in nats), with :math:`q(z) = \frac1M \sum_m q(z \mid x_m)`.

    .. math:: \underbrace{\mathbb E_x \mathrm{KL}[q(z \mid x) \| p(z)]}_{\text{rate}} =
              \underbrace{I_q(x; z)}_{\text{mutual information}}
              + \underbrace{\mathrm{KL}[q(z) \| p(z)]}_{\text{marginal}},
              \quad \mathrm{KL}[q(z) \| p(z)] =
              \underbrace{\mathrm{KL}[q(z) \| \textstyle\prod_j q(z_j)]}_{\text{total correlation}}
              + \sum_j \mathrm{KL}[q(z_j) \| p(z_j)]

    Attributes:
        mutual_information: at most the logarithm of ``data``
        marginal_kl: of the aggregate posterior from the prior
        total_correlation: NaN where the posterior is no product of one-dimensional densities and no normal
        dimension_wise: the sum of the divergences of single dimensions; NaN as well where the prior is no product
        data: M
        missing: why something is NaN, empty if nothing is
    """

    mutual_information: float = math.nan
    marginal_kl: float = math.nan
    total_correlation: float = math.nan
    dimension_wise: float = math.nan
    data: int = 0
    missing: str = ""


def information(site: Site) -> Information:
    """Measure the aggregate posterior of a site from one run over M data.

    Args:
        site: a latent of the data, drawn once for each datum from a posterior that depends on x alone
    """
    q, p, z = site.guide["fn"], site.model["fn"], site.guide["value"]
    m = len(z)
    if q.batch_shape != (m,):
        return Information(missing="the site stands in a further plate")
    try:
        own = q.log_prob(z)
        joint = aggregate(q, z)
        prior = p.log_prob(z)
    except NotImplementedError:
        return Information(missing=f"{type(q).__name__} has no density at other values than its own draws")
    mutual, marginal = float((own - joint).mean()), float((joint - prior).mean())
    single, single_prior = margins(q), factors(p)
    if single is None:
        return Information(mutual, marginal, data=m, missing="no density of single dimensions")
    each = aggregate(single, z)
    total = float((joint - each).mean())
    if single_prior is None:
        return Information(mutual, marginal, total, data=m, missing="the prior is no product over dimensions")
    wise = each - single_prior.log_prob(z).reshape(m, -1).sum(-1)
    return Information(mutual, marginal, total, float(wise.mean()), m)


def margins(q: Any) -> Any:
    """Return the densities of the single dimensions of a posterior, None where they have no closed form."""
    if isinstance(q, MultivariateNormal):
        return Normal(q.mean, q.variance.sqrt())
    return factors(q)


def aggregate(q: Any, z: Tensor) -> Tensor:
    """Return the log-density of the mixture of M posteriors at M points; dimensions of a batch are mixed one by one.

    Args:
        q: the posteriors, of batch shape (M,) or (M, *dimensions)
        z: points, of shape (M, *event)
    """
    m = len(z)
    at_once = max(1, BUDGET // (m * max(1, z[0].numel())))
    rows = [q.log_prob(part.unsqueeze(1)).logsumexp(1) - math.log(m) for part in z.split(at_once)]
    return torch.cat(rows).reshape(m, -1).sum(-1).double()
