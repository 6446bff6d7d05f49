"""The base of estimators whose objective compares the draws of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae.estimators.averages import mean
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.kernels import Kernel, mmd
from pyro_vae.trace import Recorder, Site, Terms
from pyro_vae.trace.call import buffers_kept

__all__ = ["OverBatch"]


class OverBatch(Estimator):
    r"""A bound per example minus a penalty that depends on the draws of all examples in the batch.

    The penalty of the batch is subtracted from each example, so that the loss is a scaled sum as for any other
    estimator. It concerns the aggregate posterior, :math:`q(z) = \frac1N \sum_n q(z \mid x_n)`, which a batch samples:
    the loss of a batch is not the sum of the losses of its halves, and at least two rows are needed.

    Args:
        options: ``num_particles``, ``beta`` and ``free_bits`` of :class:`Estimator`; each particle is a separate batch
            of draws

    Raises:
        ValueError: ``particles_per_pass``, as draws of earlier passes are not kept; in a run, a batch of one row, no
            latent, or a latent that is masked or enumerated.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.capacity is not None:
            raise ValueError(
                f"capacity: expected None, as {type(self).__name__} weights its own penalty, got {self.capacity}"
            )
        if self.particles_per_pass is not None:
            raise ValueError(
                f"particles_per_pass: {type(self).__name__} compares the draws of a whole batch, which passes do not "
                f"keep: leave it out, or use fewer particles than num_particles={self.num_particles}"
            )

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise if a run has no draws to compare."""
        super().check_terms(terms, recorder)
        latent = terms.split()[0].latent
        name = type(self).__name__
        if not latent:
            raise ValueError(f"program: {name} compares draws of latents, and no example has a latent: use ELBO")
        for site in (*latent, *terms.values):
            masked = site.guide["mask"] is not None and site.guide["mask"] is not True
            if masked or site.enumerated or site.auxiliary or site.marginal is not None:
                what = "masked" if masked else "enumerated" if site.enumerated else "not drawn on its own"
                raise ValueError(
                    f"program: {name} compares the draws of all rows, but site {site.name!r} is {what}: leave masked "
                    "rows out of the batch, or use ELBO"
                )
        for site in latent:
            self.check_rows(site.per_row(site.guide["value"]).shape[1])

    def check_rows(self, rows: int) -> None:
        """Raise if a batch has too few rows to compare."""
        if rows < 2:
            raise ValueError(
                f"batch_size: {type(self).__name__} compares the draws of different rows and needs at least 2, and "
                f"more for a useful estimate, got {rows}"
            )


def reconstruction(terms: Terms) -> Tensor:
    """Return log p(x given z) per example, ``(batch,)``."""
    return sum(mean(site.log_p) for site in terms.observed)


def divergence(terms: Terms) -> Tensor:
    """Return the divergence of all latents from their priors per example, ``(batch,)``."""
    return sum(terms.kl(site) for site in terms.latent)


def draws(terms: Terms) -> Tensor:
    """Return the draws of all latent sites, concatenated, ``(particles, batch, dims)``."""
    return torch.cat([site.per_row(site.guide["value"]) for site in terms.latent], -1)


def prior_draws(terms: Terms) -> Tensor:
    """Return one prior draw per posterior draw, ``(particles, batch, dims)``.

    Parameters of the prior get a gradient through its draws if it has a reparameterized sampler; if it has none (a
    mixture, a VampPrior) the draws are constants.
    """
    if len(terms.latent) == 1:
        fn, value = terms.latent[0].model["fn"], terms.latent[0].guide["value"]
        values = [fn.expand(value.shape[: value.dim() - fn.event_dim])()]
    else:  # one may depend on another: draw them in the order of the model
        with buffers_kept(terms.call):
            again = terms.call.trace(terms.call.model, Recorder()).sites
        values = [again[site.name]["value"] for site in terms.latent]
    return torch.cat([site.per_row(value) for site, value in zip(terms.latent, values, strict=True)], -1)


def mmd_to_prior(terms: Terms, kernel: Kernel) -> Tensor:
    """Return the squared discrepancy between aggregate posterior and prior, ``()``."""
    return mmd(kernel, draws(terms), terms.read(prior_draws)).mean()


def only_latent(terms: Terms, estimator: Estimator) -> Site:
    """Return the one latent site of an example, or raise if there are several."""
    if len(terms.latent) != 1:
        raise ValueError(
            f"program: {type(estimator).__name__} needs one latent site per example, whose posterior depends on x "
            f"alone, got {[site.name for site in terms.latent]}: use InfoVAE, MMD or WAE, which compare draws"
        )
    return terms.latent[0]
