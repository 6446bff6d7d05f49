"""The chi upper bound."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import split_gradient, with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.trace import Recorder, Terms

__all__ = ["CUBO"]


class CUBO(Estimator):
    r"""An upper bound on the evidence, from the chi divergence; with the ELBO it encloses the evidence.

    .. math:: \log p(x) \le \mathrm{CUBO}_n = \frac1n \log \mathbb E_q\left[w^n\right], \qquad
              w = \frac{p(x, z)}{q(z \mid x)}, \quad n \ge 1

    The value is the bound, and the loss its negative, as for all estimators. The *gradient* is a different one,
    because raising an upper bound trains nothing: the guide minimizes the bound, :math:`-\nabla_\phi \mathrm{CUBO}_n`,
    which makes it cover the posterior, and the model maximizes the importance-weighted bound of the same draws. The
    mean over K particles is inside the logarithm: for a finite K the value is **biased downwards**, and so is its
    gradient.

    References:
        Variational inference via chi upper bound minimization (Dieng et al., 2017), https://arxiv.org/abs/1611.00328

    Args:
        n: order
        num_particles: K
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: an order below 1; in a run, a latent that examples share, whose divergence makes the sum with an
            upper bound neither an upper nor a lower bound.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> CUBO().per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(self, *, n: float = 2.0, num_particles: int = 20, **options: Any) -> None:
        super().__init__(num_particles=num_particles, **options)
        self.n = check_number("n", n, 1)

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise if examples share a latent."""
        super().check_terms(terms, recorder)
        for site in terms.latent:
            if not site.local:
                raise ValueError(
                    f"guide: expected no latent that examples share, got site {site.name!r}: its divergence enters a "
                    "lower bound, and CUBO is an upper one: use ELBO or IWAE"
                )

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the upper bound; the guide minimizes it, the model maximizes the importance-weighted bound."""
        log_w = terms.log_w(beta)
        model, guide = log_w.detach().softmax(0), -(self.n * log_w.detach()).softmax(0)
        value = log_mean_exp(self.n * log_w) / self.n
        return with_gradient_of(value, split_gradient(terms, beta, model=model, path=guide, score=guide))
