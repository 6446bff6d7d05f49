"""Distributions that Pyro lacks, one a file, as Pyro ``TorchDistribution`` objects."""

from pyro_vae.distributions.accept_reject import AcceptReject
from pyro_vae.distributions.amortized_flow import AmortizedFlow
from pyro_vae.distributions.autoregressive import Autoregressive
from pyro_vae.distributions.bag_of_words import BagOfWords
from pyro_vae.distributions.beta import Beta
from pyro_vae.distributions.beta_binomial import BetaBinomial
from pyro_vae.distributions.binomial import Binomial
from pyro_vae.distributions.by_column import ByColumn
from pyro_vae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.distributions.coupled_logistic_mixture import CoupledLogisticMixture
from pyro_vae.distributions.discretized_logistic import DiscretizedLogistic
from pyro_vae.distributions.discretized_logistic_mixture import DiscretizedLogisticMixture
from pyro_vae.distributions.flattened import Flattened
from pyro_vae.distributions.flow import Flow
from pyro_vae.distributions.gamma import Gamma
from pyro_vae.distributions.grey_bernoulli import GreyBernoulli
from pyro_vae.distributions.hyperspherical_uniform import HypersphericalUniform
from pyro_vae.distributions.independent_bernoulli import IndependentBernoulli
from pyro_vae.distributions.log_categorical import LogCategorical
from pyro_vae.distributions.logistic_normal import LogisticNormal
from pyro_vae.distributions.low_rank_normal import LowRankNormal
from pyro_vae.distributions.mixture import Mixture
from pyro_vae.distributions.negative_binomial import NegativeBinomial
from pyro_vae.distributions.normal_mixture import NormalMixture
from pyro_vae.distributions.on_grid import OnGrid
from pyro_vae.distributions.ordered_logistic import OrderedLogistic
from pyro_vae.distributions.poisson import Poisson
from pyro_vae.distributions.power_spherical import PowerSpherical
from pyro_vae.distributions.refitted_normal import RefittedNormal
from pyro_vae.distributions.relaxed_bernoulli import RelaxedBernoulli
from pyro_vae.distributions.relaxed_one_hot_categorical import RelaxedOneHotCategorical
from pyro_vae.distributions.straight_through_bernoulli import StraightThroughBernoulli
from pyro_vae.distributions.straight_through_one_hot_categorical import StraightThroughOneHotCategorical
from pyro_vae.distributions.student_t import StudentT
from pyro_vae.distributions.von_mises_fisher import VonMisesFisher
from pyro_vae.distributions.zero_inflated_negative_binomial import ZeroInflatedNegativeBinomial

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
    "NegativeBinomial",
    "NormalMixture",
    "OnGrid",
    "OrderedLogistic",
    "Poisson",
    "PowerSpherical",
    "RefittedNormal",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
    "StudentT",
    "VonMisesFisher",
    "ZeroInflatedNegativeBinomial",
]
