"""The base of all estimators: tracing, scale, beta and the contract of ``pyro.infer.ELBO``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae.estimators.trace import Site, Terms, run

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
        beta: weight of the divergence from the prior: a number, or a schedule (a callable from the number of
            the step to a number)

    Attributes:
        step: the number of training steps so far, at which a schedule is read; ``fit`` and
            ``loss_and_grads`` (that is, stock ``SVI.step``) move it

    Raises:
        ValueError: fewer than one particle, or a negative beta.
    """

    #: Whether the formula averages over discrete latents that the guide enumerates.
    enumerates: ClassVar[bool] = False

    def __init__(self, *, num_particles: int = 1, beta: float | Callable[[int], float] = 1.0) -> None:
        if not isinstance(num_particles, int) or num_particles < 1:
            raise ValueError(f"num_particles: expected an int of at least 1, got {num_particles!r}")
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        self.beta = beta
        self.step = 0
        self.beta_now()  # a negative number is refused here and not in the first step

    @abstractmethod
    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the estimate for each datum, of shape ``(batch,)``, whose gradient is followed."""

    def beta_now(self) -> float | Tensor:
        """Return the weight of the divergence at the present step."""
        beta = self.beta(self.step) if callable(self.beta) else self.beta
        if not isinstance(beta, Tensor) and not 0 <= beta < float("inf"):
            raise ValueError(f"beta: expected a number of at least 0, got {beta} at step {self.step}")
        return beta

    def terms(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Terms:
        """Run guide and model once and return the log-densities of their sites."""
        terms = run(model, guide, args, kwargs, num_particles=self.num_particles)
        for site in terms.latent:
            self.check_site(site)
        return terms

    def check_site(self, site: Site) -> None:
        """Refuse a latent site that this estimator cannot handle."""
        family = site.guide["fn"]
        if site.enumerated and not self.enumerates:
            raise ValueError(
                f"{type(self).__name__} does not sum over enumerated values, but the guide enumerates site "
                f"{site.name!r}: use ELBO"
            )
        if not family.has_rsample and not site.enumerated:
            base = getattr(family, "base_dist", family)
            raise ValueError(
                f"{type(self).__name__} follows the gradient through the draw, but the guide draws site "
                f"{site.name!r} from {type(base).__name__}, which has no reparameterized sampler. Use a posterior "
                "that has one, such as MeanFieldNormal, enumerate a discrete site by "
                'infer={"enumerate": "parallel"}, or use an estimator that needs neither, such as '
                "pyro.infer.Trace_ELBO"
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
        # sites outside the plate of the data (weights of a Bayesian decoder, say) are shared by all data and have
        # particles of their own: they enter once, as in the ELBO
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
            reconstruction = sum(mean(site.log_p).sum() for site in terms.observed)
            kl = sum(mean(site.drawn_kl).sum() for site in terms.latent)
        return loss, {"reconstruction": reconstruction, "kl": kl}

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss as a tensor of shape ``()``, without a synchronisation."""
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
