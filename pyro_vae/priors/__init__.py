"""Priors p(z): ``Prior(latent, *, ...)``."""

from pyro_vae.priors.standard_normal import StandardNormal

__all__ = ["StandardNormal"]
