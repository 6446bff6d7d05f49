"""What estimators share whose objective compares the draws of a whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.estimators.base import Estimator, mean
from pyro_vae.estimators.kernels import Kernel, mmd
from pyro_vae.trace.run import Record
from pyro_vae.trace.terms import Site, Terms, particle_dim

__all__ = ["OverBatch"]


class OverBatch(Estimator):
    r"""A bound of each datum less a penalty that depends on the draws of all data in the batch.

    A penalty of the batch as a whole is taken off each datum, so that the loss is a scaled sum as for any other
    estimator. It belongs to the aggregate posterior, :math:`q(z) = \frac1N \sum_n q(z \mid x_n)`, of which a batch
    gives draws: the loss of a batch is not the sum of the losses of its halves, and at least two rows are needed.

    Args:
        options: ``num_particles``, ``beta`` and ``free_bits`` of :class:`Estimator`; each particle is a batch of draws
            of its own

    Raises:
        ValueError: ``particles_per_pass``, as passes keep no draws; in a run, a batch of one row, no latent, or a
            latent that is masked.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.particles_per_pass is not None:
            raise ValueError(
                f"particles_per_pass: {type(self).__name__} compares the draws of a whole batch, which passes do not "
                f"keep: leave it out, or use fewer particles than num_particles={self.num_particles}"
            )

    def terms(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Terms:
        """Run guide and model once, and refuse what has no draws to compare."""
        terms = super().terms(model, guide, *args, **kwargs)
        latent = terms.split()[0].latent
        name = type(self).__name__
        if not latent:
            raise ValueError(f"{name} compares draws of latents, but the program draws none for a datum: use ELBO")
        for site in latent:
            if site.guide["mask"] is not None and site.guide["mask"] is not True:
                raise ValueError(
                    f"{name} compares the draws of all rows, but site {site.name!r} is masked: leave the rows out of "
                    "the batch, or use ELBO"
                )
            rows = by_row(site.guide, site.guide["value"]).shape[1]
            if rows < 2:
                raise ValueError(
                    f"{name} compares the draws of different rows, but the batch has {rows}: expected at least 2, and "
                    "more for a useful estimate. Use a larger batch_size"
                )
        return terms


def reconstruction(terms: Terms) -> Tensor:
    """Return log p(x given z) of each datum, (batch,)."""
    return sum(mean(site.log_p) for site in terms.observed)


def divergence(terms: Terms) -> Tensor:
    """Return the divergence of all latents from their priors for each datum, (batch,)."""
    return sum(terms.kl(site) for site in terms.latent)


def draws(terms: Terms) -> Tensor:
    """Return the draws of all latent sites side by side, (particles, batch, dims)."""
    return torch.cat([by_row(site.guide, site.guide["value"]) for site in terms.latent], -1)


def prior_draws(terms: Terms) -> Tensor:
    """Return as many draws of the prior, (particles, batch, dims).

    Parameters of the prior get a gradient through its draws where it has a reparameterized sampler; where it has none
    (a mixture, a VampPrior) the draws are constants.
    """
    if len(terms.latent) == 1:
        messages = [terms.latent[0].guide]
        fn, value = terms.latent[0].model["fn"], messages[0]["value"]
        values = [fn.expand(value.shape[: value.dim() - fn.event_dim])()]
    else:  # one may depend on another: draw them in the order of the model
        again = terms.call.trace(terms.call.model, Record()).sites
        messages = [again[site.name] for site in terms.latent]
        values = [message["value"] for message in messages]
    return torch.cat([by_row(m, value) for m, value in zip(messages, values, strict=True)], -1)


def mmd_to_prior(terms: Terms, kernel: Kernel) -> Tensor:
    """Return the squared discrepancy between aggregate posterior and prior, of shape ``()``."""
    return mmd(kernel, draws(terms), prior_draws(terms)).mean()


def by_row(message: Any, value: Tensor, event_dim: int | None = None) -> Tensor:
    """Bring what a site has for each draw to (particles, batch, dims), plates inside the data among the dims."""
    event_dim = message["fn"].event_dim if event_dim is None else event_dim
    value = value.reshape(*value.shape[: value.dim() - event_dim], -1)
    particles = particle_dim(message)
    value = value.unsqueeze(0) if particles is None else value.movedim(particles - 1, 0)
    return value.movedim(-2, 1).flatten(2)


def only_latent(terms: Terms, estimator: Estimator) -> Site:
    """Return the one latent site of a datum, or say that there are several."""
    if len(terms.latent) != 1:
        raise ValueError(
            f"{type(estimator).__name__} needs one latent site a datum, whose posterior depends on x alone, but there "
            f"are {[site.name for site in terms.latent]}: use InfoVAE, MMD or WAE, which compare draws"
        )
    return terms.latent[0]
