"""Score functions in programs of any structure: plates, and latents that examples share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from torch import Tensor

from pyro_vae.trace import Site, Terms
from pyro_vae.trace.masks import masked
from pyro_vae.trace.plates import frames, particle_dim
from pyro_vae.trace.score_function import unsummed_score_function
from pyro_vae.trace.terms import refuse_enumerated

__all__ = ["downstream_loss", "one_value_per_example"]

#: Plates as names and dimensions.
Plates = Collection[tuple[str, int]]


def one_value_per_example(terms: Terms) -> bool:
    """Whether all sites are in the plate of the data alone, on one scale, so that examples have nothing in common."""
    first = terms.sites[0]
    data = [] if first.layout.name is None else [first.layout.name]
    return all(
        site.local and [f.name for f in frames(site.model)] == data and terms.same_scale(site, first)
        for site in terms.sites
    )


class Cost(NamedTuple):
    """One term of the loss.

    Attributes:
        value: ``(*plates, particles, 1)``
        plates: the plates of its sample statement
        run: 0 for a term of the guide, 1 for one of the model
        place: number of its sample statement in this run
    """

    value: Tensor
    plates: Plates
    run: int
    place: int

    def onto(self, plates: Plates) -> Tensor:
        """Return the sum over all plates but the given ones, held constant."""
        kept = {dim for name, dim in self.plates if (name, dim) in plates}
        summed = [dim for dim in range(-self.value.dim(), -2) if dim + 2 not in kept]
        value = self.value.detach()
        return value.sum(summed, keepdim=True) if summed else value


def downstream_loss(
    terms: Terms, weight: Callable[[Site], float | Tensor], signal: Callable[[Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Return the loss of a mean over particles and its metrics, with the gradient of its expectation.

    .. math:: \nabla \ell + \sum_i \sum_{n} s(\ell_{i,n}) \, \nabla \log q(z_{i,n})

    The sum is over the latent sites i without a reparameterized sampler, and the entries n of their plates. The cost
    :math:`\ell_{i,n}` holds the terms of the loss that may depend on this draw (Rao-Blackwellization). Those of
    earlier sample statements do not, nor do those of other entries of the same plates.

    References:
        Gradient estimation using stochastic computation graphs (Schulman et al., 2015),
        https://arxiv.org/abs/1506.05254

    Args:
        terms: one run of guide and model
        weight: weight of the divergence of a latent site
        signal: s, from a cost ``(*plates, particles, 1)`` to a learning signal, such as its distance from a baseline
    """
    refuse_enumerated(terms.latent, "a score function")
    costs, metrics = [], {"reconstruction": 0.0, "kl": 0.0}
    loss = 0.0
    for site in terms.sites:
        factor = 1.0 if site.guide is None else weight(site)
        parts = [] if site.auxiliary else [(1, site.model, -site.read(log_p_by_plate))]
        last = site.marginal is not None  # a density of several sites, read at one of them
        if site.guide is not None:
            log_q = site.read(log_q_by_plate)
            # without a path the gradient of log q at the draw has mean zero
            parts.append((0, site.guide, log_q if site.has_path else log_q.detach()))
        for run, message, value in parts:
            if site.local:
                name, sign = ("reconstruction", -1) if site.guide is None else ("kl", 1)
                shown = scaled(value.detach(), message.get("weights", 1.0))
                metrics[name] = metrics[name] + sign * shown.sum() / terms.num_particles
            value = factor * scaled(value, message["scale"])
            place = len(terms.order[run]) if last and run else terms.order[run].index(site.name)
            costs.append(Cost(value, plates_of(message), run, place))
            loss = loss + value.sum() / terms.num_particles
    for site in terms.latent:
        if not site.reparameterized:
            plates = plates_of(site.guide)
            places = [order.index(site.name) if site.name in order else 0 for order in terms.order]
            later = [cost for cost in costs if cost.place >= places[cost.run]]
            score = (signal(sum(cost.onto(plates) for cost in later)) * site.read(score_by_plate)).sum()
            loss = loss + (score - score.detach()) / terms.num_particles
    return loss, metrics


def log_p_by_plate(site: Site) -> Tensor:
    """Log-density under the model of each entry of a site, ``(*plates, particles, 1)``."""
    if site.marginal is not None:  # has an entry per example
        per_example = site.log_p.movedim(-1, 0).unsqueeze(-1)
        return per_example.reshape(-1, *[1] * (-site.layout.dim - 1), *per_example.shape[1:])
    return by_plate(site.model, masked(site.model["mask"], site.model["fn"].log_prob(site.model["value"])))


def log_q_by_plate(site: Site) -> Tensor:
    """Log-density under the guide of each entry of a site, ``(*plates, particles, 1)``."""
    return by_plate(site.guide, masked(site.guide["mask"], site.unmasked_log_q))


def score_by_plate(site: Site) -> Tensor:
    """Score function of each entry of a site, ``(*plates, particles, 1)``."""
    return by_plate(site.guide, unsummed_score_function(site))


def by_plate(message: Any, x: Tensor) -> Tensor:
    """Move the particles of what a site has for each entry of its batch shape to the last dimension but one."""
    particles = particle_dim(message)
    return (x.unsqueeze(-1) if particles is None else x.movedim(particles, -1)).unsqueeze(-1)


def plates_of(message: Any) -> Plates:
    """Return the plates of a site."""
    return [(frame.name, frame.dim) for frame in frames(message)]


def scaled(x: Tensor, scale: float | Tensor) -> Tensor:
    """Return ``(*plates, particles, 1)`` times a scale of the shape of the plates."""
    return x * (scale[..., None, None] if isinstance(scale, Tensor) else scale)
