"""Distributions that Pyro lacks, as Pyro ``TorchDistribution`` objects."""

from pyro_vae.distributions.accept_reject import AcceptReject
from pyro_vae.distributions.accurate import Beta, Binomial, Gamma, Poisson, StudentT
from pyro_vae.distributions.amortized_flow import AmortizedFlow
from pyro_vae.distributions.autoregressive import Autoregressive
from pyro_vae.distributions.bag_of_words import BagOfWords
from pyro_vae.distributions.bernoulli import ContinuousBernoulli, GreyBernoulli, IndependentBernoulli
from pyro_vae.distributions.by_column import ByColumn
from pyro_vae.distributions.categorical import LogCategorical, OrderedLogistic
from pyro_vae.distributions.discretized_logistic import (
    CoupledLogisticMixture,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
)
from pyro_vae.distributions.flattened import Flattened
from pyro_vae.distributions.flow import Flow
from pyro_vae.distributions.logistic_normal import LogisticNormal
from pyro_vae.distributions.low_rank_normal import LowRankNormal
from pyro_vae.distributions.mixture import Mixture
from pyro_vae.distributions.nearest_code import NearestCode
from pyro_vae.distributions.negative_binomial import BetaBinomial, NegativeBinomial, ZeroInflatedNegativeBinomial
from pyro_vae.distributions.normal_mixture import NormalMixture
from pyro_vae.distributions.on_grid import OnGrid
from pyro_vae.distributions.one_hot_autoregressive import OneHotAutoregressive
from pyro_vae.distributions.poincare_ball import WrappedNormal
from pyro_vae.distributions.power_spherical import PowerSpherical
from pyro_vae.distributions.refitted_normal import RefittedNormal
from pyro_vae.distributions.relaxed import RelaxedBernoulli, RelaxedOneHotCategorical
from pyro_vae.distributions.rounded_logistic import RoundedLogistic
from pyro_vae.distributions.sphere import HypersphericalUniform
from pyro_vae.distributions.straight_through import StraightThroughBernoulli, StraightThroughOneHotCategorical
from pyro_vae.distributions.stratified_normal_mixture import StratifiedNormalMixture
from pyro_vae.distributions.truncated_normal import TruncatedLogNormal, TruncatedNormal
from pyro_vae.distributions.von_mises_fisher import VonMisesFisher

__all__ = [
    "AcceptReject",
    "AmortizedFlow",
    "Autoregressive",
    "BagOfWords",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "ByColumn",
    "ContinuousBernoulli",
    "CoupledLogisticMixture",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Flattened",
    "Flow",
    "Gamma",
    "GreyBernoulli",
    "HypersphericalUniform",
    "IndependentBernoulli",
    "LogCategorical",
    "LogisticNormal",
    "LowRankNormal",
    "Mixture",
    "NearestCode",
    "NegativeBinomial",
    "NormalMixture",
    "OnGrid",
    "OneHotAutoregressive",
    "OrderedLogistic",
    "Poisson",
    "PowerSpherical",
    "RefittedNormal",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "RoundedLogistic",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
    "StudentT",
    "StratifiedNormalMixture",
    "TruncatedLogNormal",
    "TruncatedNormal",
    "VonMisesFisher",
    "WrappedNormal",
    "ZeroInflatedNegativeBinomial",
]
