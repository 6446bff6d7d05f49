"""Likelihoods p(x given z), decoder inside: ``Likelihood(latent, shape, *, net=MLP, ...)``.

For z of ``(*batch, latent)``, and context tensors ``(*batch, width)`` if it was built with ``context``, a likelihood
has batch shape ``batch`` and event shape ``shape``.
"""

from pyro_vae.likelihoods.bernoulli import Bernoulli
from pyro_vae.likelihoods.beta import Beta
from pyro_vae.likelihoods.beta_binomial import BetaBinomial
from pyro_vae.likelihoods.binomial import Binomial
from pyro_vae.likelihoods.categorical import Categorical
from pyro_vae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.likelihoods.discretized_logistic import DiscretizedLogistic
from pyro_vae.likelihoods.discretized_logistic_mixture import DiscretizedLogisticMixture
from pyro_vae.likelihoods.gamma import Gamma
from pyro_vae.likelihoods.heterogeneous import Heterogeneous
from pyro_vae.likelihoods.laplace import Laplace
from pyro_vae.likelihoods.log_normal import LogNormal
from pyro_vae.likelihoods.logistic import Logistic
from pyro_vae.likelihoods.low_rank_normal import LowRankNormal
from pyro_vae.likelihoods.multinomial import Multinomial
from pyro_vae.likelihoods.negative_binomial import NegativeBinomial
from pyro_vae.likelihoods.normal import Normal
from pyro_vae.likelihoods.ordered_logistic import OrderedLogistic
from pyro_vae.likelihoods.pixel_cnn import PixelCNN
from pyro_vae.likelihoods.poisson import Poisson
from pyro_vae.likelihoods.student_t import StudentT
from pyro_vae.likelihoods.student_t_table import StudentTTable
from pyro_vae.likelihoods.zero_inflated_negative_binomial import ZeroInflatedNegativeBinomial

__all__ = [
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gamma",
    "Heterogeneous",
    "Laplace",
    "LogNormal",
    "Logistic",
    "LowRankNormal",
    "Multinomial",
    "NegativeBinomial",
    "Normal",
    "OrderedLogistic",
    "PixelCNN",
    "Poisson",
    "StudentT",
    "StudentTTable",
    "ZeroInflatedNegativeBinomial",
]
