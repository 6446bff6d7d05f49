"""Likelihoods p(x given z), decoder inside: ``Likelihood(latent, shape, *, net=MLP, ...)``."""

from pyro_vae.likelihoods.bernoulli import Bernoulli
from pyro_vae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.likelihoods.normal import Normal

__all__ = ["Bernoulli", "ContinuousBernoulli", "Normal"]
