"""The base of all estimators: scale, beta, penalties and the contract of ``pyro.infer.ELBO``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_vae._util.describe import Described
from pyro_vae._util.validation import check_int
from pyro_vae.estimators.averages import mean, scaled_sum
from pyro_vae.estimators.divergence_weight import DivergenceWeight
from pyro_vae.estimators.penalties import Capacity, FreeBits, PerDimension
from pyro_vae.estimators.pyro_contract import PyroContract
from pyro_vae.estimators.shared import refuse_later
from pyro_vae.trace import Call, Recorder, Reparameterized, Scored, Site, Terms
from pyro_vae.trace.passes import run_in_passes

__all__ = ["Estimator"]


class Estimator(Described, DivergenceWeight, PyroContract):
    r"""An estimate of the evidence of each example, from one run of guide and model.

    A subclass defines two things: how latents are drawn (:attr:`draws`), and one formula (:meth:`bound`) from
    log-densities of shape ``(particles, batch)`` to one number per example. The loss is

    .. math:: -\sum_n s_n \, \mathrm{bound}_n

    with the scale :math:`s_n` (subsampling N/B, ``poutine.scale``) outside of the formula: inside a logarithm it
    would give no bound.

    Args:
        num_particles: number of draws of the latents of each example, all at once
        particles_per_pass: number of draws per pass, which bounds the memory and changes nothing else: what a pass
            computes is computed again for its gradient. All at once if None
        beta: weight of the divergence from the prior: a number, or a schedule (a callable from the step to a number)
        free_bits: nats below which the divergence costs nothing: a number for each dimension of each latent site, or
            ``PerSite(nats)``, ``PerDimension(nats)``
        capacity: a target for the divergence, in place of a weight: ``Capacity(nats, num_steps)``

    Attributes:
        step: number of training steps so far, at which a schedule is read. ``fit``, ``loss_and_grads`` (that is, stock
            ``SVI.step``) and calls of the module ``estimator(model, guide)`` in training mode increment it;
            ``differentiable_loss`` does not
        module: what the estimator itself learns, trained together with the program; None in most estimators

    Raises:
        ValueError: fewer than one particle (or than the estimator needs), a negative beta or negative free bits, a
            beta or free bits together with a capacity.

    Example:
        >>> import pyro_vae as pv
        >>> class MeanWeight(pv.estimators.Estimator):
        ...     def bound(self, terms, beta):
        ...         return terms.log_w(beta).mean(0)
        >>> toy = pv.testing.LinearGaussian()
        >>> MeanWeight(num_particles=4).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    #: How latents are drawn: a handler of ``pyro_vae.trace``.
    draws: ClassVar[type[Recorder]] = Reparameterized

    def __init__(
        self,
        *,
        num_particles: int = 1,
        particles_per_pass: int | None = None,
        beta: float | Callable[[int], float] = 1.0,
        free_bits: float | FreeBits = 0.0,
        capacity: Capacity | None = None,
    ) -> None:
        num_particles = check_int("num_particles", num_particles)
        if particles_per_pass is not None:
            particles_per_pass = check_int("particles_per_pass", particles_per_pass)
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        for name, value, default in (("beta", beta, 1.0), ("free_bits", free_bits, 0.0)):
            if capacity is not None and value != default:
                raise ValueError(f"{name}: expected {default:g} together with a capacity, got {value!r}")
        self.particles_per_pass = particles_per_pass
        self.beta, self.capacity = beta, capacity
        self.free_bits = free_bits if isinstance(free_bits, FreeBits) else PerDimension(free_bits)
        self.module: nn.Module | None = None
        self.step = 0
        self._scheduled: Tensor | None = None
        self.schedule_value()  # refuses a negative number before the first step

    @classmethod
    def example(cls, **options: Any) -> Estimator:
        """Build an instance for three latents, so that a test can check an estimator it has never seen."""
        return cls(**options)

    @abstractmethod
    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the estimate of each example, ``(batch,)``: a pure function of one run and of beta at this step."""

    def terms(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Terms:
        """Run guide and model, in passes if there are several, and return the log-densities of their sites."""
        return self.terms_for(self.evaluate, self.call(model, guide, args, kwargs))

    def terms_for(self, formula: Callable[[Terms], Any], call: Call) -> Terms:
        """Return the terms of a call; in several passes only what the formula reads is stored."""
        return run_in_passes(call, self.draws, self.check_terms, formula, self.particles_per_pass)

    def call(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Call:
        """Return the call of model and guide, where a latent that examples share has one draw for all particles."""
        return Call(model, guide, args, kwargs, self.num_particles)

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise a ValueError if no gradient goes through a draw that needs one, or if scales differ.

        Args:
            terms: one run of guide and model
            recorder: the handler that drew the latents
        """
        self.check_plates(terms)
        for site in terms.latent:
            recorder.check(site, type(self).__name__)
            if site.auxiliary or (site.marginal is not None and site.marginal.joint):
                self.check_divergence(site)
            if not terms.same_scale(site):
                raise ValueError(
                    f"guide: site {site.name!r} is scaled by {site.guide['scale']} in the guide and by "
                    f"{site.model['scale']} in the model, which gives no bound: scale both alike. To weight the "
                    "divergence give the estimator a `beta`"
                )
        self.check_shared(terms)

    def check_shared(self, terms: Terms) -> None:
        """Raise if a site that examples share may depend on their latents: bounds of examples leave it out."""
        # with several particles the shape of the site shows the dependence
        if terms.num_particles == 1 and (self.num_particles > 1 or issubclass(self.draws, Scored)):
            refuse_later(terms, type(self).__name__)

    def check_plates(self, terms: Terms) -> None:
        """Raise if the data are in two plates: a formula of importance weights is about the examples of one."""
        layout = terms.sites[0].layout
        if layout.second is not None:
            raise ValueError(
                f"model: {type(self).__name__} needs one plate that all observed sites share, but site "
                f"{layout.second!r} is not in plate {layout.name!r}: use ELBO"
            )

    def check_divergence(self, site: Site) -> None:
        """Raise if beta, free bits or a capacity apply to a site that has no divergence of its own."""
        # the sum of all divergences is known where sites are auxiliary
        if self.free_bits.nats or (not site.auxiliary and (self.scheduled or self.beta != 1.0)):
            name = "free_bits" if self.free_bits.nats else "capacity" if self.capacity is not None else "beta"
            why = "is drawn for another latent" if site.auxiliary else "depends on values that the model sums over"
            raise ValueError(
                f"{name}: expected none, because site {site.name!r} {why} and has no divergence of its own: leave it "
                "out, or draw the site on which it depends in the guide"
            )

    def evaluate(self, terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one run, and what a progress bar shows in addition.

        Args:
            terms: one run of guide and model

        Returns:
            The loss, minus the scaled sum of the bounds, ``()``; and detached sums over the batch in nats, unscaled
            but for the weights of examples: ``reconstruction`` and ``kl``.
        """
        beta = self.current_beta()
        loss, metrics = self.sites_loss(terms, beta)
        if self.free_bits.nats or self.capacity is not None:
            loss = loss + self.penalty(terms, beta)
        return loss, metrics

    def sites_loss(self, terms: Terms, beta: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics of all sites, without penalties."""
        local, shared = terms.split()
        loss, metrics = self.local_loss(local, beta)
        # sites that all examples share (weights of a Bayesian decoder, say) enter once, as in the ELBO; the bounds of
        # the examples are those given their draw
        for site in shared.latent:
            loss = loss + scaled_sum(site.scale, mean(shared.expect(self.weight(site, beta) * self.divergence(site))))
        for site in shared.observed:
            loss = loss - scaled_sum(site.scale, mean(shared.expect(site.log_p)))
        return loss, metrics

    def divergence(self, site: Site) -> Tensor:
        """Return the divergence of one latent site, ``(*values, particles, batch)``."""
        return site.sampled_kl

    def local_loss(self, terms: Terms, beta: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics of the sites in the plate of the data."""
        for site in terms.sites:
            if not terms.same_scale(site, terms.sites[0]):
                raise ValueError(
                    f"model: {type(self).__name__} needs one scale for all sites of an example, but {site.name!r} has "
                    f"{site.scale} and {terms.sites[0].name!r} has {terms.sites[0].scale}: use ELBO, or one "
                    "poutine.scale around the whole program"
                )
        loss = -scaled_sum(terms.sites[0].scale, self.checked_bound(terms, beta))
        with torch.no_grad():
            reconstruction = sum(site.total(mean(terms.expect(site.log_p))) for site in terms.observed)
            kl = sum(site.total(mean(terms.expect(site.sampled_kl))) for site in terms.latent)
        return loss, {"reconstruction": reconstruction, "kl": kl}

    def checked_bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the bound, after a check of its shape."""
        bound, batch = self.bound(terms, beta), (terms.observed or terms.latent)[0].log_p.shape[-1]
        if bound.shape != (batch,):
            raise ValueError(
                f"bound: expected one number per example, of shape ({batch},), got {tuple(bound.shape)} from "
                f"{type(self).__name__}: average over particles, and over enumerated values by `terms.expect`"
            )
        return bound

    def update(self, terms: Terms) -> None:
        """Update what the estimator keeps between training steps, such as a running baseline: nothing by default."""

    def per_datum(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return the bound itself (beta 1, unscaled) of each example in nats, ``(batch,)``; nothing is changed."""

        def bounds(terms: Terms) -> Tensor:
            Estimator.check_plates(self, terms)  # there is one bound per example of one plate
            return self.checked_bound(terms.split()[0], 1.0)

        return bounds(self.terms_for(bounds, self.call(model, guide, args, kwargs)))
