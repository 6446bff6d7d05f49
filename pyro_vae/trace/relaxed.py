"""Bernoulli draws as signs of logistic ones, and runs of the model at continuous relaxations of the draws."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import softplus

from pyro_vae.trace.antithetic import check_binary
from pyro_vae.trace.call import buffers_kept, outline
from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.masks import masked
from pyro_vae.trace.plates import particle_dim
from pyro_vae.trace.scored import Scored
from pyro_vae.trace.site import Site
from pyro_vae.trace.terms import Terms, refuse_enumerated
from pyro_vae.trace.tracing import pair

__all__ = ["Binary", "bernoulli_with", "log_q_at", "logistic_pair", "relaxed_terms", "unmasked_entries"]


class Binary(Scored):
    """Draw as :class:`Scored`, where the latents of each example are Bernoulli.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> pv.trace.run(vae.model, vae.guide, (torch.zeros(5, 4),), draws=Binary).draws[0].rows("z").shape
        torch.Size([1, 5, 3])
    """

    def check(self, site: Site, user: str) -> None:
        """Raise if the values of an example are not drawn from a Bernoulli distribution."""
        super().check(site, user)
        refuse_enumerated([site], "a relaxation")
        if site.local:
            check_binary(site.guide, user)


def logistic_pair(logits: Tensor, value: Tensor, noise: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    r"""Return two logistic draws with the signs of given binary values, independent of each other given these.

    .. math:: z = \alpha + \operatorname{logit} u, \qquad
              \tilde z = s \log\left(1 + e^{\operatorname{logit} v} (1 + e^{s \alpha})\right), \quad s = 2b - 1

    The first is differentiated as a draw from the logistic distribution around the logits, the second as a draw given
    the values.

    Args:
        logits: log-odds :math:`\alpha`
        value: binary values b, of the same shape
        noise: logits of two uniform draws, likewise
    """
    sign = 2 * value - 1
    first, second = (sign * softplus(logit + softplus(sign * logits)) for logit in noise)
    return logits + (first - logits).detach(), second


def bernoulli_with(logits: Tensor, fn: Any) -> Any:
    """Return a Bernoulli distribution with the event of another one, whose log-density is linear in any values."""
    return dist.Bernoulli(logits=logits, validate_args=False).to_event(fn.event_dim)


def log_q_at(site: Site, logits: Tensor) -> Tensor:
    """Return the log-density of the draws of a Bernoulli site at other logits, ``(particles, batch)``."""
    log_q = bernoulli_with(logits, site.guide["fn"]).log_prob(site.guide["value"])
    return site.layout.per_example(masked(site.score_mask, log_q), site.guide)


def unmasked_entries(site: Site, x: Tensor) -> Tensor:
    """Return a tensor of the shape of the draws, with 0 for those that no term of the loss depends on."""
    mask = site.score_mask
    return x if mask is None else torch.where(mask.reshape(*mask.shape, *[1] * site.guide["fn"].event_dim), x, 0.0)


def relaxed_terms(terms: Terms, site: Site, logits: Tensor, values: tuple[Tensor, Tensor]) -> Terms:
    r"""Run the model at relaxed values of a Bernoulli site, and return the sites of each example.

    The log-density under the guide is :math:`z \log p + (1 - z) \log (1 - p)`, linear in the value. That under the
    model is its formula, without a check of the value.

    Args:
        terms: one run of guide and model at binary values
        site: the only latent site of an example
        logits: its logits, of the shape of the draws
        values: two relaxed values of each draw, likewise

    Returns:
        Terms with twice as many particles: first those at the first values, then those at the second.
    """
    call = replace(terms.call, num_particles=2 * terms.num_particles)
    fn, nesting, particles = site.guide["fn"], outline(call).nesting, particle_dim(site.guide)

    def joined(both: tuple[Tensor, Tensor]) -> Tensor:
        if particles is not None:
            return torch.cat(both, particles - fn.event_dim)
        missing = nesting + fn.event_dim - both[0].dim()
        return torch.stack(both).reshape(2, *[1] * missing, *both[0].shape)

    replayed = {name: {"value": value} for draw in terms.draws for name, (value, _) in draw.shared.items()}
    replayed[site.name] = {"value": joined(values)}
    with buffers_kept(call):
        scored = call.trace(call.model, Recorder({**replayed, **terms.subsamples}))
    drawn, found = Recorder(), scored.sites[site.name]
    guide = {**found, "fn": bernoulli_with(joined((logits, logits)), fn), "mask": site.guide["mask"]}
    drawn.sites = {name: scored.sites[name] for name in replayed} | {site.name: guide}
    scored.sites[site.name] = {**found, "fn": unchecked(found["fn"])}
    return pair(call, drawn, scored).split()[0]


def unchecked(fn: Any) -> Any:
    """Return a copy of a distribution that computes its log-density at any value."""
    fn = copy.copy(fn)
    fn._validate_args = False
    for name, part in vars(fn).items():
        if isinstance(part, Distribution):
            setattr(fn, name, unchecked(part))
    return fn
