"""Distributions that Pyro lacks, one a file, as Pyro ``TorchDistribution`` objects."""

from pyro_vae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.distributions.grey_bernoulli import GreyBernoulli

__all__ = ["ContinuousBernoulli", "GreyBernoulli"]
