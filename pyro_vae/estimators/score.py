"""What estimators for draws without a gradient have in common."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.estimators.base import Estimator
from pyro_vae.trace.terms import Site, Terms

__all__ = ["ScoreFunction", "score_surrogate", "log_score"]


class ScoreFunction(Estimator):
    r"""An estimator that follows the score :math:`\nabla_\phi \log q(z \mid x)` of draws without a gradient.

    Sites that have a reparameterized sampler keep the gradient through their draw.
    """

    scores = True

    def check_site(self, site: Site) -> None:
        """Refuse a site without a gradient that is shared by all data."""
        super().check_site(site)
        # its signal would be that of all data at once
        if not site.reparameterized and not site.local:
            raise ValueError(
                f"{type(self).__name__} weighs the draws of each datum by themselves, but site {site.name!r} stands "
                "outside the plate of the data: give it a guide with a reparameterized sampler"
            )


def log_score(terms: Terms) -> Tensor | float:
    """Return the log-density under the guide of the draws that have no gradient, (particles, batch)."""
    return sum(site.log_q for site in terms.latent if not site.reparameterized)


def score_surrogate(terms: Terms, beta: float | Tensor, signal: Tensor) -> Tensor:
    r"""Return an expression whose gradient is that of the bound, with a signal in place of :math:`\log w`.

    .. math:: \frac1K \sum_k \left( \nabla \log w_k + s_k \, \nabla_\phi \log q_\phi(z_k \mid x) \right)

    The score within :math:`\nabla \log w`, whose mean is zero, is left out.

    Args:
        terms: one run
        beta: weight of the divergence
        signal: s, (particles, batch)
    """
    return (terms.log_w(beta) + (beta + signal.detach()) * log_score(terms)).mean(0)
