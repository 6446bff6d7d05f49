"""Log-densities of the sites of one run: per datum, per particle, unscaled."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import kl_divergence

__all__ = ["ENUM_DIM", "PARTICLES", "Draw", "Site", "Terms"]


#: Name of the plate over particles.
PARTICLES = "_particles"

#: Enumerated values stand on the left of every plate: programs nest four plates at most, particles are one more.
ENUM_DIM = -6


@dataclass
class Site:
    """One sample statement: its density under the model and, where it is latent, under the guide.

    An ``auxiliary`` site stands in the guide alone.
    """

    name: str
    model: Any
    guide: Any = None
    separable: bool = False
    enumerated: bool = False
    held: Any = None
    reparameterized: bool = True
    auxiliary: bool = False

    @cached_property
    def log_p(self) -> Tensor:
        """Log-density under the model, unscaled, of shape (particles, batch); 0 for a site of the guide alone."""
        if self.auxiliary:
            return torch.zeros_like(self.log_q)
        return per_datum(self.model, masked(self.model, self.model["fn"].log_prob(self.model["value"])))

    @cached_property
    def log_q(self) -> Tensor:
        """Log-density under the guide, unscaled, of shape (particles, batch)."""
        return per_datum(self.guide, masked(self.guide, self.guide["fn"].log_prob(self.guide["value"])))

    @cached_property
    def unmasked_log_q(self) -> Tensor:
        """Log-density under the guide whatever is masked, (particles, batch)."""
        return per_datum(self.guide, self.guide["fn"].log_prob(self.guide["value"]))

    @cached_property
    def path_log_q(self) -> Tensor:
        """Log-density under the guide with its parameters held: its gradient goes through the draw alone."""
        held = self.guide if self.held is None else self.held
        return per_datum(held, masked(held, held["fn"].log_prob(held["value"])))

    @cached_property
    def dimension_kl(self) -> Tensor:
        """Divergence of each dimension of the event, (particles, batch, dimensions)."""
        q, p = (factors(m["fn"]) for m in (self.guide, self.model))
        if q is None or p is None or self.enumerated:
            raise ValueError(
                f"free_bits: site {self.name!r} is no product over dimensions in guide and model, so that no "
                "dimension can have free bits of its own: use free_bits=PerSite(nats)"
            )
        value = self.guide["value"]
        kl = q.log_prob(value) - p.log_prob(value)
        if self.separable:
            try:
                kl = closed_form(q, p)
            except NotImplementedError:
                pass
        mask = self.guide["mask"]
        kl = kl.reshape(*kl.shape[: kl.dim() - self.guide["fn"].event_dim], -1)
        if isinstance(mask, Tensor):
            kl = torch.where(mask.unsqueeze(-1), kl, kl.new_zeros(()))
        particles = particle_dim(self.guide)
        kept = {kl.dim() - 2} | (set() if particles is None else {kl.dim() - 1 + particles})
        inner = [d for d in range(kl.dim() - 1) if d not in kept]
        kl = kl.sum(inner) if inner else kl
        return kl.unsqueeze(0) if particles is None else kl

    @cached_property
    def closed_kl(self) -> Tensor | None:
        """Divergence from guide to model in closed form, (particles, batch); None where there is none."""
        # the divergence that Pyro has for a Delta leaves out its log-density
        if not self.separable or isinstance(self.guide["fn"], Delta):
            return None
        try:
            kl = closed_form(self.guide["fn"], self.model["fn"])
        except NotImplementedError:
            return None
        return per_datum(self.guide, masked(self.guide, kl))

    @property
    def drawn_kl(self) -> Tensor:
        """Log q - log p at the draw, whose mean is the divergence."""
        return self.log_q - self.log_p

    @property
    def scale(self) -> float | Tensor:
        """What the plate (N/B) and ``poutine.scale`` weigh this site with."""
        return self.model["scale"]

    @property
    def local(self) -> bool:
        """Whether the site stands in the plate of the data (``dim=-1``)."""
        return in_data_plate(self.model)


class Draw(NamedTuple):
    """The values at which the latent sites of one pass are scored, by name and each with its number of event dims."""

    start: int
    stop: int
    values: dict[str, tuple[Tensor, int]]

    def without(self, names: Collection[str]) -> Draw:
        """Return the draws of the other sites."""
        return self._replace(values={name: value for name, value in self.values.items() if name not in names})

    def weigh(self, weights: Tensor) -> None:
        """Multiply the gradient that comes back to each draw by its weight, of shape (particles, batch)."""
        for name, (value, _) in self.values.items():
            if value.requires_grad:
                factor = self.like(name, weights)
                value.register_hook(lambda grad, factor=factor: grad * factor)

    def like(self, name: str, weights: Tensor) -> Tensor:
        """Return the weights of this pass as constants that broadcast with the draw of a site."""
        value, event_dim = self.values[name]
        part = weights[self.start : self.stop].detach()
        batch = value.dim() - event_dim
        shape = (*part.shape[:1], *[1] * (batch - 2), *part.shape[1:]) if batch > 1 else part.shape[1:]
        return part.reshape(*shape, *[1] * event_dim)


@dataclass
class Terms:
    """All sites of one run of guide and model.

    Attributes:
        latent: latent sites
        observed: observed sites
        num_particles: how many draws of the latents
        draws: the values that the sites were scored at, pass by pass
        call: runs guide and model again with other handlers
    """

    latent: list[Site]
    observed: list[Site]
    num_particles: int
    draws: Sequence[Draw] = ()
    call: Any = None

    @property
    def sites(self) -> list[Site]:
        """Latent, then observed sites."""
        return self.latent + self.observed

    @cached_property
    def log_weight(self) -> Tensor | None:
        """Log-probability under the guide of each combination of enumerated values, (*values, particles, batch).

        None where nothing is enumerated. Masks are left aside: it is by this weight that all other sites are averaged,
        also those of data for which the enumerated site itself does not count.
        """
        sites = [site.unmasked_log_q for site in self.latent if site.enumerated]
        return sum(sites) if sites else None

    def log_w(self, beta: float | Tensor = 1.0, *, held: bool = False) -> Tensor:
        r"""Return :math:`\log p(x \mid z) + \beta (\log p(z) - \log q(z))` of each particle, (particles, batch).

        Args:
            beta: weight of the divergence
            held: whether the parameters of the guide are held, so that the gradient goes through the draw alone

        Enumerated values are averaged over inside the logarithm.
        """
        log_w = sum(site.log_p for site in self.observed)
        for site in self.latent:
            gap = site.log_p - (site.path_log_q if held else site.log_q)
            log_w = log_w + (gap if isinstance(beta, float) and beta == 1.0 else beta * gap)
        return self.log_expect(log_w)

    def kl(self, site: Site) -> Tensor:
        """Return the divergence of a latent site for each datum: in closed form where there is one."""
        each = self.expect(site.drawn_kl if site.closed_kl is None else site.closed_kl)
        return each.mean(0)

    def expect(self, term: Tensor) -> Tensor:
        """Average over the enumerated values, (*values, particles, batch) to (particles, batch)."""
        if self.log_weight is None or term.dim() == 2:
            return term
        term = self.log_weight.exp() * term
        return term.sum(tuple(range(term.dim() - 2)))

    def log_expect(self, log_w: Tensor) -> Tensor:
        """Average the exponentials over the enumerated values and return the logarithm, (particles, batch)."""
        if self.log_weight is None:
            return log_w
        log_w = self.log_weight + log_w
        return log_w.logsumexp(tuple(range(log_w.dim() - 2)))

    def split(self) -> tuple[Terms, Terms]:
        """Return the sites in the plate of the data, and those outside of it."""
        outside = {site.name for site in self.sites if not site.local}
        if not outside:
            return self, replace(self, latent=[], observed=[], draws=())
        return tuple(
            replace(
                self,
                latent=[s for s in self.latent if s.local == local],
                observed=[s for s in self.observed if s.local == local],
                draws=[draw.without(outside) for draw in self.draws] if local else (),
            )
            for local in (True, False)
        )


def closed_form(q: Any, p: Any) -> Tensor:
    """Return the divergence of two distributions, brought to one shape: torch does not broadcast all of its own."""
    shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    return kl_divergence(*(fn if fn.batch_shape == shape else fn.expand(shape) for fn in (q, p)))


def masked(site: Any, log_prob: Tensor) -> Tensor:
    """Leave out what the mask of a site hides."""
    mask = site["mask"]
    if mask is None or mask is True:
        return log_prob
    if mask is False:
        return torch.zeros_like(log_prob)
    # where, not a product: a masked entry may be NaN or -inf
    return torch.where(mask, log_prob, log_prob.new_zeros(()))


def per_datum(site: Any, log_prob: Tensor) -> Tensor:
    """Bring a site's log-density to shape (particles, batch), enumerated values on the left."""
    particles = particle_dim(site)
    if not in_data_plate(site):
        # a global site: one number a particle
        if particles is None:
            return log_prob.sum().reshape(1, 1)
        return log_prob.reshape(log_prob.shape[0], -1).sum(-1, True)
    # plates inside the data are summed; what is left of them, up to the enumerated values, has size one
    inner = tuple(d for d in range(max(ENUM_DIM + 1, -log_prob.dim()), -1) if d != particles)
    if inner:
        log_prob = log_prob.sum(inner)
    return log_prob.unsqueeze(-2) if particles is None else log_prob


def in_data_plate(site: Any) -> bool:
    """Whether a site stands in the plate of the data (``dim=-1``); what does not is shared by all of them."""
    return any(frame.dim == -1 for frame in site["cond_indep_stack"])


def particle_dim(site: Any) -> int | None:
    """Return the dimension of the plate over particles, None where there is a single one."""
    return next((frame.dim for frame in site["cond_indep_stack"] if frame.name == PARTICLES), None)


def factors(fn: Any) -> Any:
    """Return the distribution of the single dimensions of an event, None where it is no product of them."""
    base = getattr(fn, "base_dist", None)
    if fn.event_dim == 0:
        return fn
    whole = base is not None and getattr(fn, "reinterpreted_batch_ndims", -1) == fn.event_dim
    return base if whole and base.event_dim == 0 else None
