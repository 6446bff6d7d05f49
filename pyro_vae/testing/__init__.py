"""Laws that every part and estimator obeys, and models with exact answers to test against."""

from pyro_vae.testing.estimator_laws import check_estimator
from pyro_vae.testing.oracles import LinearGaussian
from pyro_vae.testing.part_laws import check_mass, check_part, parts

__all__ = ["LinearGaussian", "check_estimator", "check_mass", "check_part", "parts"]
