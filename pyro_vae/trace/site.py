"""One sample statement of a run, and the quantities that can be read from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.trace.divergence import closed_form_kl, kl_per_dimension
from pyro_vae.trace.layout import Layout
from pyro_vae.trace.masks import masked
from pyro_vae.trace.plates import frames
from pyro_vae.trace.score_function import rejection_sampler, score_function
from pyro_vae.trace.values import average_inside

__all__ = ["Marginal", "Quantity", "Site"]

#: A function of a site whose result :meth:`Site.read` caches: ``(*values, particles, batch)`` or None.
Quantity = Callable[[Any], Tensor | None]


class Marginal(NamedTuple):
    """A density of the model that is a sum over the values of sites which only the model has.

    Attributes:
        log_p: computes its logarithm, ``(*values, particles, batch)``
        joint: whether it is that of several sites together; it is read at one of them, and is 1 at the others
    """

    log_p: Callable[[], Tensor]
    joint: bool


@dataclass(eq=False)
class Site:
    """One sample statement: its message in the model and, if it is latent, in the guide.

    All densities are unscaled, in nats, and of shape ``(particles, batch)``, with a dimension on the left for each
    enumerated site. Each quantity is computed when it is first read.

    The values of an enumerated site in a plate inside an example are averaged before the sum over that plate, so that
    quantities of such a run are expectations: they may be added, but not used in a nonlinear formula.

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
        values: the enumerated sites whose values are averaged before the sum over the plates of this site
        marginal: the density under the model, where it is a sum over the values of sites that only the model has
        score_mask: which entries of the draw some term of the loss depends on, all of them if None

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
    values: Sequence[Site] = ()
    marginal: Marginal | None = None
    score_mask: Tensor | None = None
    _cache: dict[Quantity, Tensor | None] = field(default_factory=dict, repr=False)

    def read(self, quantity: Quantity) -> Any:
        """Return a function of this site, computed at the first call.

        Args:
            quantity: a function from a site to a tensor of shape ``(*values, particles, batch)``, or None
        """
        if quantity not in self._cache:
            self._cache[quantity] = quantity(self)
        return self._cache[quantity]

    def per_row(self, value: Tensor, event_dim: int | None = None) -> Tensor:
        """Return what a latent site has for each draw as ``(particles, batch, dims)``."""
        return self.layout.per_row(value, self.guide, self.guide["fn"].event_dim if event_dim is None else event_dim)

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
        return self.layout.scale(self.model)

    @property
    def weights(self) -> Tensor | None:
        """The weights of the examples, ``(batch,)``, which :attr:`scale` contains; None if they have none."""
        weights = self.model.get("weights")
        return None if weights is None else weights.reshape(-1)

    def total(self, per_example: Tensor) -> Tensor:
        """Return the sum of one number per example, ``(batch,)``, by the weights of the examples if they have any."""
        return per_example.sum() if self.weights is None else (self.weights * per_example).sum()

    @cached_property
    def local(self) -> bool:
        """Whether the site is in the plate of the data."""
        return self.layout.contains(self.model)

    @property
    def score_function(self) -> Tensor:
        """The function whose gradient is what the gradient through the draw leaves out; see :class:`Terms`."""
        return self.read(score_function)

    @cached_property
    def inner(self) -> bool:
        """Whether the site is in a plate other than that of the data."""
        plates = frames(self.model)
        return len(plates) > 1 or (len(plates) == 1 and plates[0].name != self.layout.name)

    @property
    def unmasked_log_q(self) -> Tensor:
        """Log-density under the guide for each entry of the batch shape, masked entries included."""
        return self.read(unmasked_log_q)

    @cached_property
    def has_path(self) -> bool:
        """Whether a gradient goes through the draw."""
        return self.guide is None or bool(self.guide["fn"].has_rsample)

    @cached_property
    def reparameterized(self) -> bool:
        """Whether the gradient through the draw is the whole gradient of an expectation."""
        return self.has_path and (self.guide is None or rejection_sampler(self.guide["fn"]) is None)

    def per_example(self, message: Any, log_prob: Tensor) -> Tensor:
        """Apply the mask of a message and sum over plates inside an example."""
        log_prob = masked(message["mask"], log_prob)
        if self.values:
            log_prob = average_inside(self.values, message, log_prob)
        return self.layout.per_example(log_prob, message)

    def score(self, message: Any) -> Tensor:
        """Return the log-density of a message at its value; raise if its distribution cannot compute it."""
        try:
            log_prob = message["fn"].log_prob(message["value"])
        except (KeyError, NotImplementedError) as error:  # of Pyro's flows without an inverse, and of simulators
            family = type(message["fn"]).__name__
            if self.guide is None and isinstance(error, NotImplementedError):
                raise NotImplementedError(
                    f"model: expected a density at site {self.name!r}, got {family} without log_prob. Train the guide "
                    "on simulations, by ForwardKL"
                ) from error
            raise ValueError(
                f"density: expected a distribution with a log-density at any value, got {family} at site "
                f"{self.name!r}: use transforms with an inverse, or a posterior such as "
                "pyro_vae.posteriors.PlanarFlow"
            ) from error
        return self.per_example(message, log_prob)


def log_p(site: Site) -> Tensor:
    """Log-density under the model."""
    if site.marginal is not None:
        return site.marginal.log_p()
    return torch.zeros_like(site.log_q) if site.auxiliary else site.score(site.model)


def log_q(site: Site) -> Tensor:
    """Log-density under the guide."""
    return site.per_example(site.guide, site.unmasked_log_q) if site.enumerated else site.score(site.guide)


def unmasked_log_q(site: Site) -> Tensor:
    """Log-density under the guide for each entry of the batch shape, masked entries included."""
    return site.guide["fn"].log_prob(site.guide["value"])


def log_probabilities(site: Site) -> Tensor:
    """Log-probability under the guide of each value of an enumerated site, masked entries included."""
    log_q = average_inside(site.values, site.guide, site.unmasked_log_q)
    return site.layout.per_example(log_q, site.guide)


def log_q_detached_params(site: Site) -> Tensor:
    """Log-density under the guide with its parameters held constant."""
    return site.score(stopped(site, "params"))


def log_q_detached_draws(site: Site) -> Tensor:
    """Log-density under the guide at constant draws."""
    return site.score(stopped(site, "draws"))


def stopped(site: Site, what: str) -> Any:
    """Return the message of the guide with its parameters or its draws held constant."""
    if site.enumerated or site.auxiliary or site.stopped is None:
        why = "another latent is computed from it" if site.auxiliary else "its values are summed over"
        raise ValueError(
            f"guide: gradients of the parameters and of the draws of site {site.name!r} cannot be separated, because "
            f"{why}: use ELBO or IWAE"
        )
    return site.stopped(what)[site.name]
