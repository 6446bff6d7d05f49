"""The evidence lower bound."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae.estimators.base import Estimator, mean, weigh
from pyro_vae.trace.terms import Site, Terms

__all__ = ["ELBO"]


class ELBO(Estimator):
    r"""The evidence lower bound, with the divergence in closed form where there is one.

    .. math:: \log p(x) \ge \mathbb E_{q(z \mid x)}[\log p(x \mid z)]
              - \beta \, \mathrm{KL}(q(z \mid x) \,\|\, p(z))

    The closed form is used for each latent site for which torch or Pyro registers one and which the other
    sites allow (no latent that the model draws before it may depend on it in the guide). Everywhere else the
    divergence is the mean of :math:`\log q - \log p` over the draws. Both are unbiased. Discrete latents that the
    guide enumerates (``infer={"enumerate": "parallel"}``) are summed over exactly.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114;
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl

    Args:
        analytic_kl: whether to use the closed form where there is one
        options: ``num_particles``, ``particles_per_pass``, ``beta`` and ``free_bits`` of :class:`Estimator`

    Attributes:
        kl_forms: after a run, for each latent site ``"closed form"`` or ``"Monte Carlo"``

    Example:
        >>> import torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> elbo = ELBO()
        >>> elbo.differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([])
        >>> elbo.kl_forms
        {'z': 'closed form'}
    """

    enumerates = True

    quantities = ("closed_kl",)

    def __init__(self, *, analytic_kl: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.analytic_kl = analytic_kl
        self.kl_forms: dict[str, str] = {}

    def divergence(self, site: Site) -> Tensor:
        """Return the divergence of one latent site, (particles, batch), and keep a record of its form."""
        closed = site.closed_kl if self.analytic_kl else None
        self.kl_forms[site.name] = "Monte Carlo" if closed is None else "closed form"
        return site.drawn_kl if closed is None else closed

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return reconstruction minus weighted divergence of each datum."""
        reconstruction = sum(mean(terms.expect(site.log_p)) for site in terms.observed)
        return reconstruction - beta * sum(mean(terms.expect(self.divergence(site))) for site in terms.latent)

    def local(self, terms: Terms, beta: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics, each site under a scale of its own: the bound is a sum, so that it may have one."""
        sums = {"reconstruction": 0.0, "kl": 0.0}
        loss = 0.0
        for site in terms.sites:
            if site.guide is None:
                kind, sign, part = "reconstruction", -1.0, site.log_p
            else:
                kind, sign, part = "kl", beta, self.divergence(site)
            if terms.log_weight is None and not isinstance(site.scale, Tensor):
                # a sum over data and particles does not ask for their order
                total = scaled(1 / terms.num_particles, part.sum())
                loss = loss + scaled(sign * site.scale, total)
            else:
                part = mean(terms.expect(part))
                total = part.sum()
                loss = loss + sign * weigh(site.scale, part)
            sums[kind] = sums[kind] + total.detach()
        return loss, sums


def scaled(factor: float | Tensor, x: Tensor) -> Tensor:
    """Return the product, for free where the factor is 1."""
    return x if isinstance(factor, float) and factor == 1.0 else x * factor
