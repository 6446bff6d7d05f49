"""Estimators of the evidence, each a ``pyro.infer.ELBO``: ``Estimator(*, num_particles=..., beta=...)``."""

from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.elbo import ELBO

__all__ = ["ELBO", "Estimator"]
