"""The base of all estimators: tracing, scale, beta and the contract of ``pyro.infer.ELBO``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor, nn

from pyro_vae.estimators.free_bits import FreeBits, PerDimension
from pyro_vae.programs.parameters import announce
from pyro_vae.trace.passes import in_passes
from pyro_vae.trace.run import Call, Record, draw_shared, outline, run
from pyro_vae.trace.terms import Site, Terms

__all__ = ["Estimator"]


class Estimator(PyroELBO):
    r"""A bound on the evidence of each datum, estimated from traces of model and guide.

    A subclass writes one formula, :meth:`bound`: from the unscaled log-densities of each site, of shape
    ``(particles, batch)``, to one number a datum. The loss is

    .. math:: -\sum_n s_n \, \mathrm{bound}_n

    with the scale :math:`s_n` (subsampling N/B, ``poutine.scale``) outside of whatever the formula does
    to the particles: inside a logarithm it would not be a bound.

    Args:
        num_particles: draws of the latents for each datum, all at once
        particles_per_pass: draws at a time; the others follow in further passes, which bounds the memory and changes
            nothing else (what a pass computed is computed again for its gradient). All at once if None
        beta: weight of the divergence from the prior: a number, or a schedule (a callable from the number of
            the step to a number, such as those of ``pyro_vae.training``)
        free_bits: nats below which the divergence costs nothing: a number for each dimension of each latent site, or
            ``PerSite(nats)``, ``PerDimension(nats)``; see there

    Attributes:
        step: the number of training steps so far, at which a schedule is read; ``fit`` and
            ``loss_and_grads`` (that is, stock ``SVI.step``) move it

    Raises:
        ValueError: fewer than one particle (or than the estimator needs), a negative beta or negative free bits.

    Example:
        >>> import pyro_vae as pv
        >>> class MeanWeight(pv.estimators.Estimator):
        ...     def bound(self, terms, beta):
        ...         return terms.log_w(beta).mean(0)
        >>> toy = pv.testing.LinearGaussian()
        >>> MeanWeight(num_particles=4).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    #: Whether the formula averages over discrete latents that the guide enumerates.
    enumerates: ClassVar[bool] = False
    #: Whether the formula does without a gradient through the draw.
    scores: ClassVar[bool] = False
    #: Whether the formula reads ``Site.path_log_q``.
    holds: ClassVar[bool] = False
    #: What the formula reads of each latent site beside ``log_p`` and ``log_q``.
    quantities: ClassVar[tuple[str, ...]] = ()
    #: How the sites of the guide are drawn.
    record: ClassVar[type[Record]] = Record
    #: How few particles the formula needs.
    fewest: ClassVar[int] = 1
    #: What the estimator itself learns or keeps, if anything: trained together with the program.
    module: nn.Module | None = None

    def __init__(
        self,
        *,
        num_particles: int = 1,
        particles_per_pass: int | None = None,
        beta: float | Callable[[int], float] = 1.0,
        free_bits: float | FreeBits = 0.0,
    ) -> None:
        for name, value in (("num_particles", num_particles), ("particles_per_pass", particles_per_pass)):
            fewest = self.fewest if name == "num_particles" else 1
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < fewest):
                raise ValueError(f"{name}: {type(self).__name__} expects an int of at least {fewest}, got {value!r}")
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        self.particles_per_pass = particles_per_pass
        self.beta = beta
        self.free_bits = free_bits if isinstance(free_bits, FreeBits) else PerDimension(free_bits)
        self.step = 0
        self.read: Tensor | None = None
        self.read_schedule()  # a negative number is refused here and not in the first step

    @classmethod
    def example(cls, **options: Any) -> Estimator:
        """Build an instance for three latents, so that a test can check an estimator it has never heard of."""
        return cls(**options)

    @abstractmethod
    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the estimate for each datum, of shape ``(batch,)``, whose gradient is followed."""

    def beta_now(self) -> float | Tensor:
        """Return the weight of the divergence at the present step."""
        # a capacity takes the place of the weighted divergence
        return 0.0 if hasattr(self.beta, "penalty") else self.read_schedule()

    def read_schedule(self) -> float | Tensor:
        """Return what ``beta`` says at the present step: the weight of the divergence, or the target of a capacity."""
        if self.read is not None:
            return self.read
        value = self.beta(self.step) if callable(self.beta) else self.beta
        if not isinstance(value, Tensor) and not (isinstance(value, Real) and 0 <= value < float("inf")):
            raise ValueError(f"beta: expected a number of at least 0, got {value!r} at step {self.step}")
        return value

    @contextmanager
    def reading(self, value: Tensor) -> Iterator[None]:
        """Read the schedule, if there is one, as ``value`` within: a number that a recorded step takes as argument."""
        self.read = value if callable(self.beta) else None
        try:
            yield
        finally:
            self.read = None

    def penalty(self, terms: Terms, beta: float | Tensor) -> float | Tensor:
        """Return what free bits or a capacity take off the bound of each datum, of shape ``()``."""
        total = beta * self.free_bits.hinge(terms) if self.free_bits.nats else 0.0
        if hasattr(self.beta, "penalty"):
            total = total + self.beta.penalty(
                sum(terms.kl(site) for site in terms.latent).mean(), self.read_schedule()
            )
        return total

    def terms(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Terms:
        """Run guide and model once and return the log-densities of their sites."""
        call = Call(model, guide, args, kwargs, self.num_particles)
        at_once = self.particles_per_pass or self.num_particles
        if at_once >= self.num_particles:
            return self.one_pass(call, self.record)
        nesting, shares = outline(model, guide, args, kwargs)
        shared = draw_shared(replace(call, num_particles=1), self.record) if shares else {}
        record = partial(self.record, shared)
        whole, rest = divmod(self.num_particles, at_once)
        sizes = [at_once] * whole + [rest] * (rest > 0)
        names = {"log_p", "log_q", *self.quantities}
        if self.free_bits.nats:
            names.add(self.free_bits.quantity)
        if hasattr(self.beta, "penalty"):
            names.add("closed_kl")

        def one_pass(size: int) -> Terms:
            return self.one_pass(replace(call, num_particles=size, nesting=nesting), record)

        return in_passes(one_pass, sizes, sorted(names))

    def one_pass(self, call: Call, record: Callable[[], Record]) -> Terms:
        """Run guide and model once."""
        terms = run(
            call.model,
            call.guide,
            call.args,
            call.kwargs,
            num_particles=call.num_particles,
            nesting=call.nesting,
            held=self.holds,
            record=record,
        )
        for site in terms.latent:
            self.check_site(site)
        return terms

    def check_site(self, site: Site) -> None:
        """Refuse a latent site that this estimator cannot handle."""
        family = site.guide["fn"]
        if site.enumerated and not self.enumerates:
            raise ValueError(
                f"{type(self).__name__} does not sum over enumerated values, but the guide enumerates site "
                f"{site.name!r}: use ELBO, IWAE or Enumeration"
            )
        if not family.has_rsample and not site.enumerated and not self.scores:
            base = getattr(family, "base_dist", family)
            raise ValueError(
                f"{type(self).__name__} follows the gradient through the draw, but the guide draws site "
                f"{site.name!r} from {type(base).__name__}, which has no reparameterized sampler. Use a posterior "
                "that has one, such as MeanFieldNormal; sum over a small discrete site by Enumeration; or use an "
                "estimator that needs neither, such as VIMCO, ReinforceLOO or ReweightedWakeSleep"
            )
        q, p = site.guide["scale"], site.model["scale"]
        # two tensors may be equal, and a look at their values would wait for the device
        if not same(q, p) and not (isinstance(q, Tensor) and isinstance(p, Tensor)):
            raise ValueError(
                f"site {site.name!r} is scaled by {q} in the guide and by {p} in the model: a scale on one side "
                "only is no bound. To weigh the divergence give the estimator a `beta`"
            )

    def per_datum(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return the bound itself (beta 1, unscaled) of each datum in nats, of shape ``(batch,)``."""
        return self.bound(self.terms(model, guide, *args, **kwargs).split()[0], 1.0)

    def evaluate(self, terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one run, and what a progress bar shows beside it.

        Args:
            terms: one run of guide and model

        Returns:
            The loss, minus the scaled sum of the bounds, of shape ``()``; and detached sums over the batch in
            nats, unscaled: ``reconstruction`` and ``kl``.
        """
        local, outside = terms.split()
        beta = self.beta_now()
        loss, metrics = self.local(local, beta)
        if self.free_bits.nats or hasattr(self.beta, "penalty"):
            each = local.sites[0].log_p.new_ones(local.sites[0].log_p.shape[-1])
            loss = loss + weigh(local.sites[0].scale, each * self.penalty(local, beta))
        # sites outside the plate of the data (weights of a Bayesian decoder, say) are shared by all data and drawn
        # once: they enter once, as in the ELBO, and the bounds of the data are those given their draw
        for site in outside.latent:
            loss = loss + weigh(site.scale, mean(beta * site.drawn_kl))
        for site in outside.observed:
            loss = loss - weigh(site.scale, mean(site.log_p))
        return loss, metrics

    def local(self, terms: Terms, beta: float | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics of the sites in the plate of the data."""
        for site in terms.sites:
            if not same(site.scale, terms.sites[0].scale):
                raise ValueError(
                    f"{type(self).__name__} needs one scale for all sites of a datum, but {site.name!r} has "
                    f"{site.scale} and {terms.sites[0].name!r} has {terms.sites[0].scale}: use ELBO, or one "
                    "poutine.scale round the whole program"
                )
        loss = -weigh(terms.sites[0].scale, self.bound(terms, beta))
        with torch.no_grad():
            reconstruction = sum(mean(terms.expect(site.log_p)).sum() for site in terms.observed)
            kl = sum(mean(terms.expect(site.drawn_kl)).sum() for site in terms.latent)
        return loss, {"reconstruction": reconstruction, "kl": kl}

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss as a tensor of shape ``()``, without a synchronisation."""
        if self.module is not None:
            announce(estimator=self.module)
        return self.evaluate(self.terms(model, guide, *args, **kwargs))[0]

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Return the loss as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Return the loss as a number and add its gradient to the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        self.step += 1
        return loss.item()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        # the abstract method of pyro.infer.ELBO, of which `terms` takes the place
        raise NotImplementedError(f"{type(self).__name__} collects its terms by `terms`")


def same(a: float | Tensor, b: float | Tensor) -> bool:
    """Whether two scales are known to be equal without a look at a tensor's values."""
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)


def mean(terms: Tensor) -> Tensor:
    """Return the mean over particles, (particles, batch) to (batch,), for free where there is one."""
    return terms[0] if terms.shape[0] == 1 else terms.mean(0)


def weigh(scale: float | Tensor, per_datum: Tensor) -> Tensor:
    """Return the scaled sum over the batch."""
    if isinstance(scale, Tensor):
        return (scale * per_datum).sum()
    return per_datum.sum() if scale == 1.0 else per_datum.sum() * scale
