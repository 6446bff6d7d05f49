"""Differentiable annealed importance sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor, nn

from pyro_vae._util.validation import check_int, check_number
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.estimators.shared import refuse_later
from pyro_vae.trace import Recorder, Terms
from pyro_vae.trace.moved import moved_terms
from pyro_vae.trace.terms import refuse_enumerated
from pyro_vae.trace.unconstrained import Unconstrained

__all__ = ["DAIS"]


class DAIS(Estimator):
    r"""A bound by annealing: uncorrected Hamiltonian steps from the guide towards the posterior.

    .. math:: \log p(x) \ge \mathbb E\left[\log \frac1S \sum_{s=1}^S \frac{p(x, z_K)}{q(z_0 \mid x)}
              \prod_{k=1}^K \frac{\mathcal N(\hat v_k; 0, I)}{\mathcal N(v_k; 0, I)}\right]

    Each of the S particles starts at a draw :math:`z_0` of the guide. Step k is a leapfrog step of size
    :math:`\epsilon` from :math:`(z_{k-1}, v_k)` to :math:`(z_k, \hat v_k)` on the density
    :math:`q(z \mid x)^{1 - k/K} \, p(x, z)^{k/K}`, and the next momentum is
    :math:`v_{k+1} = \gamma \hat v_k + \sqrt{1 - \gamma^2} \, \xi`. No step is rejected, so that the gradient goes
    through all of them, with second derivatives of the densities. Step size and damping :math:`\gamma` are learned
    with the program; a step of size 0 gives :class:`IWAE`. Latents with constraints move as unconstrained real
    numbers.

    A particle costs K + 2 runs of the decoder, K of them with gradients. The metrics ``reconstruction`` and ``kl`` are
    those at :math:`z_0`.

    References:
        Differentiable annealed importance sampling and the perils of gradient noise (Zhang et al., 2021),
        https://arxiv.org/abs/2107.10211;
        MCMC variational inference via uncorrected Hamiltonian annealing (Geffner and Domke, 2021),
        https://arxiv.org/abs/2107.04150

    Args:
        num_steps: K
        step_size: initial :math:`\epsilon`, a number, or one number for each unconstrained dimension of the latents
        damping: initial :math:`\gamma`, the share of the momentum that each step keeps, between 0 and 1
        num_particles: S
        options: ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`. The target of the steps is
            :math:`p(x \mid z) \, p(z)^\beta q(z \mid x)^{1 - \beta}`

    Attributes:
        module: the parameters :math:`\log \epsilon` and :math:`\operatorname{logit} \gamma`, saved and moved like any
            other module; they stay as they are after ``module.requires_grad_(False)``

    Raises:
        ValueError: fewer than one step, a step size that is not above 0, a damping outside of (0, 1), or
            ``particles_per_pass``, as all particles move at once; in the first step, latents that are discrete, have
            no density or no map from the real numbers, or a wrong number of step sizes.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> DAIS(num_steps=3).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    module: Leapfrog

    def __init__(
        self,
        *,
        num_steps: int = 5,
        step_size: float | Sequence[float] = 0.1,
        damping: float = 0.9,
        num_particles: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(num_particles=num_particles, **options)
        if self.particles_per_pass is not None:
            raise ValueError(
                f"particles_per_pass: expected None, as DAIS moves all particles at once, got "
                f"{self.particles_per_pass}: use IWAE, or fewer particles"
            )
        self.num_steps = check_int("num_steps", num_steps)
        several = isinstance(step_size, Sequence)
        sizes = [check_number("step_size", size, above=0) for size in (step_size if several else [step_size])]
        damping = check_number("damping", damping, above=0, below=1)
        self.module = Leapfrog(torch.tensor(sizes if several else sizes[0]), torch.tensor(damping))

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise if the latents of an example cannot be moved."""
        super().check_terms(terms, recorder)
        refuse_enumerated(terms.latent, "a move of the draw")
        for site in terms.split()[0].latent:
            if site.auxiliary or isinstance(site.guide["fn"], Delta):
                what = "it occurs in the guide alone" if site.auxiliary else "its Delta has no density"
                raise ValueError(f"guide: DAIS cannot move site {site.name!r}, because {what}: use ELBO or IWAE")

    def check_shared(self, terms: Terms) -> None:
        """Raise if a site that examples share may depend on their latents, which move."""
        if terms.num_particles == 1:  # with several the shape of the site shows the dependence
            refuse_later(terms, type(self).__name__)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the log of the mean weight of each example at the end of the path."""
        if not terms.latent:
            return log_mean_exp(terms.log_w(beta))
        latents = unconstrained(terms)
        z = latents.rows({site.name: site.guide for site in terms.latent})
        v, *noise = terms.read(self.noise)
        step_size, damping = self.module(z)
        log_w = -density(terms, latents.values(z)[1], 0.0, beta)
        for k in range(1, self.num_steps + 1):
            if k > 1:
                v = damping * v + (1 - damping.square()).sqrt() * noise[k - 2]
            z = z + 0.5 * step_size * v
            pushed = v + step_size * slope(terms, latents, z, k / self.num_steps, beta)
            z = z + 0.5 * step_size * pushed
            log_w = log_w + 0.5 * (v.square() - pushed.square()).sum(-1)
            v = pushed
        sites, jacobians = latents.values(z)
        return log_mean_exp(log_w + density(moved_terms(terms, sites), jacobians, 1.0, beta))

    def noise(self, terms: Terms) -> Tensor:
        """Draw the noise of the momenta, ``(num_steps, particles, batch, dims)``."""
        z = unconstrained(terms).rows({site.name: site.guide for site in terms.latent})
        return torch.randn(self.num_steps, *z.shape, dtype=z.dtype, device=z.device)


class Leapfrog(nn.Module):
    """Step sizes and damping of Hamiltonian steps.

    Args:
        step_size: initial step size, ``()`` or ``(dims,)``
        damping: initial share of the momentum that is kept, ``()``
    """

    def __init__(self, step_size: Tensor, damping: Tensor) -> None:
        super().__init__()
        self.log_step_size = nn.Parameter(step_size.log())
        self.logit_damping = nn.Parameter(damping.logit())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, with the dtype of the latents ``(particles, batch, dims)``."""
        sizes = self.log_step_size.shape
        if sizes not in ((), z.shape[-1:]):
            raise ValueError(
                f"step_size: expected a number, or one for each of the {z.shape[-1]} unconstrained dimensions of the "
                f"latents, got {sizes[0]}: pass {z.shape[-1]} numbers to DAIS"
            )
        return self.log_step_size.to(z.dtype).exp(), self.logit_damping.to(z.dtype).sigmoid()


def unconstrained(terms: Terms) -> Unconstrained:
    """Return the map between the latents of an example and real numbers."""
    return Unconstrained({site.name: site.guide for site in terms.latent}, terms.latent[0].layout)


def density(terms: Terms, jacobians: dict[str, Tensor], t: float, beta: float | Tensor) -> Tensor:
    """Return the log-density between guide (t = 0) and target (t = 1) of unconstrained latents, up to a constant.

    Args:
        terms: guide and model at the latents
        jacobians: log-determinants of the map from unconstrained latents, by site
        t: place on the path
        beta: weight of the divergence
    """
    log_q = sum(site.log_q + site.per_example(site.guide, jacobians[site.name]) for site in terms.latent)
    return log_q if t == 0 else log_q + t * terms.log_w(beta)


def slope(terms: Terms, latents: Unconstrained, z: Tensor, t: float, beta: float | Tensor) -> Tensor:
    """Return the gradient of the log-density with respect to unconstrained latents; differentiable if they are."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        z = z if z.requires_grad else z.detach().requires_grad_()
        sites, jacobians = latents.values(z)
        log_f = density(moved_terms(terms, sites), jacobians, t, beta)
        return torch.autograd.grad(log_f.sum(), z, create_graph=create_graph)[0]
