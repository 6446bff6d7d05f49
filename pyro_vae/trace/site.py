"""One sample statement of a run, and the quantities that can be read from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.trace.layout import Layout

__all__ = ["Quantity", "Site", "factors", "masked"]

#: A function of a site whose result :meth:`Site.read` caches: ``(*values, particles, batch)`` or None.
Quantity = Callable[[Any], Tensor | None]


@dataclass(eq=False)
class Site:
    """One sample statement: its message in the model and, if it is latent, in the guide.

    All densities are unscaled, in nats, and of shape ``(particles, batch)``, with a dimension on the left for each
    enumerated site. Each quantity is computed when it is first read.

    Attributes:
        name: name of the sample statement
        model: its message in the model
        guide: its message in the guide, None for an observed site
        layout: the layout of the dimensions
        enumerated: whether the values of the site are enumerated
        auxiliary: whether the site occurs in the guide alone
        closed_form: whether a closed-form divergence of this site alone is unbiased, because no latent that the model
            draws before this one depends on it in the guide
        stopped: returns the messages of the guide with its parameters, or with its draws, held constant

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = pv.trace.run(toy.program.model, toy.program.guide, (toy.draw(5),), num_particles=3)
        >>> terms.latent[0].log_q.shape
        torch.Size([3, 5])
    """

    name: str
    model: Any
    guide: Any = None
    layout: Layout = field(default_factory=Layout)
    enumerated: bool = False
    auxiliary: bool = False
    closed_form: bool = False
    stopped: Callable[[str], dict[str, Any]] | None = None
    _cache: dict[Quantity, Tensor | None] = field(default_factory=dict, repr=False)

    def read(self, quantity: Quantity) -> Any:
        """Return a function of this site, computed at the first call.

        Args:
            quantity: a function from a site to a tensor of shape ``(*values, particles, batch)``, or None
        """
        if quantity not in self._cache:
            self._cache[quantity] = quantity(self)
        return self._cache[quantity]

    @property
    def log_p(self) -> Tensor:
        """Log-density under the model; 0 for a site of the guide alone."""
        return self.read(log_p)

    @property
    def log_q(self) -> Tensor:
        """Log-density under the guide."""
        return self.read(log_q)

    @property
    def log_q_detached_params(self) -> Tensor:
        """Log-density under the guide with its parameters held constant: differentiated through the draws only."""
        return self.read(log_q_detached_params)

    @property
    def log_q_detached_draws(self) -> Tensor:
        """Log-density under the guide at constant draws: differentiated through the parameters only (the score)."""
        return self.read(log_q_detached_draws)

    @property
    def sampled_kl(self) -> Tensor:
        """Log q minus log p at the draws; its mean is the divergence."""
        return self.log_q - self.log_p

    @property
    def closed_form_kl(self) -> Tensor | None:
        """Divergence from the guide to the model in closed form, None where there is none."""
        return self.read(closed_form_kl)

    @property
    def kl_per_dimension(self) -> Tensor:
        """Divergence of each dimension of the event, ``(particles, batch, dims)``."""
        return self.read(kl_per_dimension)

    @cached_property
    def scale(self) -> float | Tensor:
        """The weight of this site: N/B for a subsampled plate, times that of ``poutine.scale``."""
        return self.layout.scale(self.model["scale"], self.name)

    @cached_property
    def local(self) -> bool:
        """Whether the site is in the plate of the data."""
        return self.layout.contains(self.model)

    @cached_property
    def reparameterized(self) -> bool:
        """Whether a gradient goes through the draw."""
        return self.guide is None or bool(self.guide["fn"].has_rsample)

    def per_example(self, message: Any, log_prob: Tensor) -> Tensor:
        """Apply the mask of a message and sum over plates inside an example."""
        return self.layout.per_example(masked(message, log_prob), message)

    def score(self, message: Any) -> Tensor:
        """Return the log-density of a message at its value."""
        return self.per_example(message, message["fn"].log_prob(message["value"]))


def log_p(site: Site) -> Tensor:
    """Log-density under the model."""
    return torch.zeros_like(site.log_q) if site.auxiliary else site.score(site.model)


def log_q(site: Site) -> Tensor:
    """Log-density under the guide."""
    return site.score(site.guide)


def log_q_unmasked(site: Site) -> Tensor:
    """Log-density under the guide, masked entries included."""
    return site.layout.per_example(site.guide["fn"].log_prob(site.guide["value"]), site.guide)


def log_q_detached_params(site: Site) -> Tensor:
    """Log-density under the guide with its parameters held constant."""
    return site.score(stopped(site, "params"))


def log_q_detached_draws(site: Site) -> Tensor:
    """Log-density under the guide at constant draws."""
    return site.score(stopped(site, "draws"))


def stopped(site: Site, what: str) -> Any:
    """Return the message of the guide with its parameters or its draws held constant."""
    if site.enumerated or site.stopped is None:
        raise ValueError(
            f"guide: gradients of the parameters and of the draws of site {site.name!r} cannot be separated, because "
            "its values are summed over: use ELBO, IWAE or Enumeration"
        )
    return site.stopped(what)[site.name]


def closed_form_kl(site: Site) -> Tensor | None:
    """Divergence in closed form, None where there is none."""
    # the divergence that Pyro has for a Delta leaves out its log-density
    if not site.closed_form or isinstance(site.guide["fn"], Delta):
        return None
    try:
        kl = closed_form(site.guide["fn"], site.model["fn"])
    except NotImplementedError:
        return None
    return site.per_example(site.guide, kl)


def kl_per_dimension(site: Site) -> Tensor:
    """Divergence of each dimension."""
    q, p = (factors(message["fn"]) for message in (site.guide, site.model))
    if q is None or p is None or site.enumerated:
        raise ValueError(
            f"free_bits: guide and model must be products over the dimensions of site {site.name!r} to give each "
            "dimension free bits of its own: use free_bits=PerSite(nats)"
        )
    value, event_dim = site.guide["value"], site.guide["fn"].event_dim
    kl = q.log_prob(value) - p.log_prob(value)
    if site.closed_form:
        try:
            kl = closed_form(q, p)
        except NotImplementedError:
            pass
    kl = kl.reshape(*kl.shape[: kl.dim() - event_dim], -1)
    if isinstance(site.guide["mask"], Tensor):
        kl = torch.where(site.guide["mask"].unsqueeze(-1), kl, kl.new_zeros(()))
    return site.layout.per_example(kl, site.guide, event_dim=1)


def closed_form(q: Any, p: Any) -> Tensor:
    """Return the divergence of two distributions at their joint batch shape, which torch does not always broadcast."""
    shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    return kl_divergence(*(fn if fn.batch_shape == shape else fn.expand(shape) for fn in (q, p)))


def masked(message: Any, log_prob: Tensor) -> Tensor:
    """Set masked entries to zero."""
    mask = message["mask"]
    if mask is None or mask is True:
        return log_prob
    if mask is False:
        return torch.zeros_like(log_prob)
    # where, not a product: a masked entry may be NaN or -inf
    return torch.where(mask, log_prob, log_prob.new_zeros(()))


def factors(fn: Any) -> Any:
    """Return the distribution of a single dimension of an event, None if the event is no product over dimensions."""
    base = getattr(fn, "base_dist", None)
    if fn.event_dim == 0:
        return fn
    whole = base is not None and getattr(fn, "reinterpreted_batch_ndims", -1) == fn.event_dim
    return base if whole and base.event_dim == 0 else None
