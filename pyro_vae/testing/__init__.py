"""The laws that every part, program and estimator obeys, and models with exact answers to hold them to."""

from pyro_vae.testing.laws import check_estimator, check_part, parts
from pyro_vae.testing.oracles import LinearGaussian

__all__ = ["LinearGaussian", "check_estimator", "check_part", "parts"]
