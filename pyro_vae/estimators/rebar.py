"""REBAR: score functions with a control variate from a continuous relaxation of binary latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor, nn

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.factor_vae import one_number
from pyro_vae.estimators.gradients import spread, with_gradient_of
from pyro_vae.estimators.score import pathless_log_q
from pyro_vae.trace import Recorder, Site, Terms
from pyro_vae.trace.antithetic import bernoulli
from pyro_vae.trace.relaxed import Binary, log_q_at, logistic_pair, relaxed_terms, unmasked_entries

__all__ = ["REBAR"]


class REBAR(Estimator):
    r"""The evidence lower bound for Bernoulli latents, by score functions with a relaxation as control variate.

    .. math:: \nabla_\alpha \, \mathbb E[\log w(b)] = \mathbb E\left[\left(\log w(b) - c(\tilde z)\right)
              \nabla_\alpha \log q(b) + \nabla_\alpha c(z) - \nabla_\alpha c(\tilde z)\right], \qquad
              c(z) = \eta \, \log w(\sigma(z / \lambda))

    for the logits :math:`\alpha` of the guide. The logistic draw :math:`z = \alpha + \operatorname{logit} u` has the
    sign of the binary draw, :math:`b = 1[z > 0]`, and :math:`\tilde z` is a second one given b. The scale
    :math:`\eta` and the temperature :math:`\lambda` are learned with the program, to minimize the variance of the
    gradient. Value and gradient are unbiased whatever they are, for one particle as well. In :math:`\log w` of a
    relaxed value in (0, 1), the Bernoulli density of the guide is the linear function
    :math:`z \log p + (1 - z) \log (1 - p)`, and the prior's is its formula at this value; the model must be
    differentiable in its latents. The gradient of the model is that at the binary draws.

    A particle costs three runs of the decoder in a training step, and a second derivative through two of them; its
    evaluation costs one.

    References:
        REBAR: low-variance, unbiased gradient estimates for discrete latent variable models (Tucker et al., 2017),
        https://arxiv.org/abs/1703.07370

    Args:
        temperature: initial :math:`\lambda`
        scale: initial :math:`\eta`; 0 is the plain score function
        num_particles: number of binary draws of each example, each with two relaxations
        options: ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Attributes:
        module: the parameters :math:`\log \lambda` and :math:`\eta`, saved and moved like any other module; they stay
            as they are after ``module.requires_grad_(False)``

    Raises:
        ValueError: a temperature that is not above 0, or ``particles_per_pass``, as relaxations are run all at once;
            in the first step, a site that is not Bernoulli, or several latents per example.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> REBAR().per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    draws = Binary
    module: Control

    def __init__(self, *, temperature: float = 0.5, scale: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        if self.particles_per_pass is not None:
            raise ValueError(
                f"particles_per_pass: expected None, as {type(self).__name__} runs the relaxations of all particles "
                f"at once, got {self.particles_per_pass}: use ReinforceLOO or DisARM"
            )
        self.module = Control(check_number("temperature", temperature, above=0), check_number("scale", scale))

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise if an example has several latents."""
        super().check_terms(terms, recorder)
        names = [site.name for site in terms.latent if site.local]
        if len(names) > 1:
            raise ValueError(
                f"guide: {type(self).__name__} needs one latent site per example, a vector of independent binary "
                f"values, got {names}: use ReinforceLOO or VIMCO"
            )

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the mean log weight; its gradient also trains the control variate."""
        log_w = terms.log_w(beta)
        value = log_w.mean(0)
        if not torch.is_grad_enabled() or not terms.latent:
            return value
        slopes = self.slopes(terms, beta)
        path = in_example(terms.latent[0], slopes.detach() * logits_of(terms))
        surrogate = (log_w + beta * pathless_log_q(terms) + path).mean(0)
        return with_gradient_of(value, surrogate - self.variance(terms, slopes))

    def slopes(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the estimated gradient of the logits, of the shape of the draws."""
        [site] = terms.latent
        logits = logits_of(terms).detach().requires_grad_()
        pair = logistic_pair(logits, site.guide["value"], terms.read(noise))
        values = tuple([(z / self.module.log_temperature.exp()).sigmoid() for z in pair])
        log_w = relaxed_terms(terms, site, logits.detach(), values).log_w(beta)
        rows = torch.cat([site.per_row(unmasked_entries(site, z)) for z in pair])
        free, given = self.module(log_w, rows).chunk(2)
        signal, one = terms.log_w(beta).detach() - given, torch.ones_like(free)
        outputs = (log_q_at(site, logits), free, given)
        return torch.autograd.grad(outputs, logits, (signal, one, -one), create_graph=bool(self.learned))[0]

    def variance(self, terms: Terms, slopes: Tensor) -> Tensor | float:
        """Return the sum of the squared slopes, spread over the examples, as a function of what is learned alone."""
        if not self.learned:
            return 0.0
        [site] = terms.latent
        squares = in_example(site, slopes.square()).mean(0)
        scale = torch.ones_like(squares) * site.scale
        changes = torch.autograd.grad((scale * squares).sum(), self.learned, materialize_grads=True)
        total = torch.stack([(p * change).sum() for p, change in zip(self.learned, changes, strict=True)]).sum()
        return spread(total, scale)

    @property
    def learned(self) -> list[nn.Parameter]:
        """The parameters of the control variate that are trained."""
        return [p for p in self.module.parameters() if p.requires_grad]


class Control(nn.Module):
    r"""The control variate :math:`c(z) = \eta \, \log w(\sigma(z / \lambda)) + r(z)`.

    Args:
        temperature: initial :math:`\lambda`
        scale: initial :math:`\eta`
        surrogate: r, from ``(*batch, dims)`` to one number per draw; 0 if None
    """

    def __init__(self, temperature: float, scale: float, surrogate: nn.Module | None = None) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.scale = nn.Parameter(torch.tensor(scale))
        self.surrogate = surrogate

    def forward(self, log_w: Tensor, z: Tensor) -> Tensor:
        """Return c from log weights ``(particles, batch)`` of relaxed values, and z ``(particles, batch, dims)``."""
        c = self.scale * log_w
        return c if self.surrogate is None else c + one_number(self.surrogate, z, "surrogate")


def logits_of(terms: Terms) -> Tensor:
    """Return the logits of the guide, of the shape of the draws."""
    message = terms.latent[0].guide
    return bernoulli(message["fn"]).logits.expand_as(message["value"])


def noise(terms: Terms) -> tuple[Tensor, Tensor]:
    """Return the logits of two uniform draws for each binary draw."""
    value = terms.latent[0].guide["value"]
    eps = torch.finfo(value.dtype).eps
    return torch.rand_like(value).logit(eps), torch.rand_like(value).logit(eps)


def in_example(site: Site, x: Tensor) -> Tensor:
    """Return the sum of what a site has for each entry of its draws, ``(particles, batch)``."""
    return site.layout.per_example(sum_rightmost(x, site.guide["fn"].event_dim), site.guide)
