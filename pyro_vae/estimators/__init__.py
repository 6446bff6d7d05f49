"""Estimators of the evidence, each a ``pyro.infer.ELBO``: ``Estimator(*, num_particles=..., beta=...)``."""

from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.ciwae import CIWAE
from pyro_vae.estimators.cubo import CUBO
from pyro_vae.estimators.dreg import DReG
from pyro_vae.estimators.elbo import ELBO
from pyro_vae.estimators.free_bits import PerDimension, PerSite
from pyro_vae.estimators.gdreg import GDReG
from pyro_vae.estimators.iwae import IWAE
from pyro_vae.estimators.jackknife_iwae import JackknifeIWAE
from pyro_vae.estimators.miwae import MIWAE
from pyro_vae.estimators.piwae import PIWAE
from pyro_vae.estimators.renyi import Renyi
from pyro_vae.estimators.sticking_the_landing import StickingTheLanding
from pyro_vae.estimators.tvo import TVO

__all__ = [
    "CIWAE",
    "CUBO",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "TVO",
    "DReG",
    "Estimator",
    "GDReG",
    "JackknifeIWAE",
    "PerDimension",
    "PerSite",
    "Renyi",
    "StickingTheLanding",
]
