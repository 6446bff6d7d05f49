"""Estimators of the evidence, each a ``pyro.infer.ELBO``: ``Estimator(*, num_particles=..., beta=...)``."""

from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.beta_tc import BetaTC
from pyro_vae.estimators.ciwae import CIWAE
from pyro_vae.estimators.cubo import CUBO
from pyro_vae.estimators.dais import DAIS
from pyro_vae.estimators.dip import DIP
from pyro_vae.estimators.disarm import DisARM
from pyro_vae.estimators.dreg import DReG
from pyro_vae.estimators.elbo import ELBO
from pyro_vae.estimators.enumeration import Enumeration
from pyro_vae.estimators.f_divergence import (
    FDivergence,
    chi_square,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    total_variation,
)
from pyro_vae.estimators.factor_vae import FactorVAE
from pyro_vae.estimators.fivo import FIVO
from pyro_vae.estimators.forward_divergence import ForwardKL
from pyro_vae.estimators.gdreg import GDReG
from pyro_vae.estimators.info_vae import InfoVAE
from pyro_vae.estimators.iwae import IWAE
from pyro_vae.estimators.jackknife_iwae import JackknifeIWAE
from pyro_vae.estimators.kernels import RBF, InverseMultiquadratic
from pyro_vae.estimators.miwae import MIWAE
from pyro_vae.estimators.mmd import MMD
from pyro_vae.estimators.nvil import NVIL
from pyro_vae.estimators.ovis import OVIS
from pyro_vae.estimators.penalties import Capacity, PerDimension, PerSite
from pyro_vae.estimators.piwae import PIWAE
from pyro_vae.estimators.rebar import REBAR
from pyro_vae.estimators.reinforce_loo import ReinforceLOO
from pyro_vae.estimators.relax import RELAX
from pyro_vae.estimators.renyi import Renyi
from pyro_vae.estimators.reweighted_wake_sleep import ReweightedWakeSleep
from pyro_vae.estimators.sticking_the_landing import StickingTheLanding
from pyro_vae.estimators.trimmed_elbo import TrimmedELBO
from pyro_vae.estimators.tvo import TVO
from pyro_vae.estimators.vimco import VIMCO
from pyro_vae.estimators.wae import WAE

__all__ = [
    "FDivergence",
    "chi_square",
    "forward_kl",
    "jensen_shannon",
    "reverse_kl",
    "total_variation",
    "CIWAE",
    "CUBO",
    "DAIS",
    "DIP",
    "ELBO",
    "FIVO",
    "IWAE",
    "MIWAE",
    "MMD",
    "NVIL",
    "OVIS",
    "PIWAE",
    "RBF",
    "REBAR",
    "RELAX",
    "TVO",
    "VIMCO",
    "WAE",
    "BetaTC",
    "Capacity",
    "DReG",
    "DisARM",
    "Enumeration",
    "Estimator",
    "ForwardKL",
    "FactorVAE",
    "GDReG",
    "InfoVAE",
    "InverseMultiquadratic",
    "JackknifeIWAE",
    "PerDimension",
    "PerSite",
    "ReinforceLOO",
    "Renyi",
    "ReweightedWakeSleep",
    "StickingTheLanding",
    "TrimmedELBO",
]
