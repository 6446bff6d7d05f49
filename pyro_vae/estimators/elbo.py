"""The evidence lower bound."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae.estimators.averages import mean, scaled_sum
from pyro_vae.estimators.mean_over_particles import MeanOverParticles
from pyro_vae.trace import Site, Terms

__all__ = ["ELBO"]


class ELBO(MeanOverParticles):
    r"""The evidence lower bound, with the divergence in closed form where there is one.

    .. math:: \log p(x) \ge \mathbb E_{q(z \mid x)}[\log p(x \mid z)]
              - \beta \, \mathrm{KL}(q(z \mid x) \,\|\, p(z))

    The closed form is used for each latent site for which torch or Pyro registers one, provided that no latent which
    the model draws before it depends on it in the guide. Everywhere else the divergence is the mean of
    :math:`\log q - \log p` over the draws. Both are unbiased.

    Discrete sites that are marked for enumeration (``infer={"enumerate": "parallel"}``) are summed exactly: those of
    the guide in any plate, or shared by all examples; those that only the model has (the class of a mixture, the
    states of a hidden Markov model) inside the logarithm. A site must be in all plates of the enumerated sites that it
    depends on.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114;
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl

    Args:
        analytic_kl: whether to use the closed form where there is one
        options: ``num_particles``, ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of
            :class:`Estimator`

    Example:
        >>> import torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> elbo = ELBO()
        >>> elbo.differentiable_loss(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([])
        >>> elbo.kl_forms(toy.program.model, toy.program.guide, toy.draw(5))
        {'z': 'closed form'}
    """

    def __init__(self, *, analytic_kl: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.analytic_kl = analytic_kl

    def kl_forms(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> dict[str, str]:
        """Return ``"closed form"`` (a sum over enumerated values is one) or ``"Monte Carlo"`` for each latent site."""
        forms = {True: "closed form", False: "Monte Carlo"}
        with torch.no_grad():
            latent = self.terms(model, guide, *args, **kwargs).latent
        return {
            site.name: forms[site.enumerated or (self.analytic_kl and site.closed_form_kl is not None)]
            for site in latent
        }

    def divergence(self, site: Site) -> Tensor:
        """Return the divergence of one latent site, ``(*values, particles, batch)``."""
        closed = site.closed_form_kl if self.analytic_kl else None
        return site.sampled_kl if closed is None else closed

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return reconstruction minus weighted divergence of each example."""
        reconstruction = sum(mean(terms.expect(site.log_p)) for site in terms.observed)
        return reconstruction - beta * sum(mean(terms.expect(self.divergence(site))) for site in terms.latent)

    def check_plates(self, terms: Terms) -> None:
        """Accept data in several plates: the bound is a sum over sites."""

    def local_loss(self, terms: Terms, beta: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics; the bound is a sum over sites, so that each may have a scale of its own."""
        sums = {"reconstruction": 0.0, "kl": 0.0}
        loss = 0.0
        for site in terms.sites:
            if site.guide is None:
                kind, sign, part = "reconstruction", -1.0, site.log_p
            else:
                kind, sign, part = "kl", beta, self.divergence(site)
            if not terms.values and not isinstance(site.scale, Tensor):
                # a sum over examples and particles needs no particular order
                total = scaled(1 / terms.num_particles, part.sum())
                loss = loss + scaled(sign * site.scale, total)
            else:
                part = mean(terms.expect(part))
                total = site.total(part)
                loss = loss + sign * scaled_sum(site.scale, part)
            sums[kind] = sums[kind] + total.detach()
        return loss, sums


def scaled(factor: float | Tensor, x: Tensor) -> Tensor:
    """Return the product, without an operation for a factor of 1."""
    return x if isinstance(factor, float) and factor == 1.0 else x * factor
