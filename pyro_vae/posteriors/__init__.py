"""Posteriors q(z given x), encoder inside: ``Posterior(shape, latent, *, net=MLP, ...)``."""

from pyro_vae.posteriors.mean_field_normal import MeanFieldNormal

__all__ = ["MeanFieldNormal"]
