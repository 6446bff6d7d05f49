"""Posteriors q(z given x), encoder inside: ``Posterior(shape, latent, *, net=MLP, ...)``.

For x of ``(*batch, *shape)``, and context tensors ``(*batch, width)`` if it was built with ``context``, a posterior
has batch shape ``batch`` and event shape ``(latent,)``.
"""

from pyro_vae.posteriors.bernoulli import Bernoulli
from pyro_vae.posteriors.dirichlet import Dirichlet
from pyro_vae.posteriors.full_rank_normal import FullRankNormal
from pyro_vae.posteriors.householder_flow import HouseholderFlow
from pyro_vae.posteriors.inverse_autoregressive_flow import InverseAutoregressiveFlow
from pyro_vae.posteriors.laplace import Laplace
from pyro_vae.posteriors.logistic_normal import LogisticNormal
from pyro_vae.posteriors.low_rank_normal import LowRankNormal
from pyro_vae.posteriors.mean_field_normal import MeanFieldNormal
from pyro_vae.posteriors.mixture_of_normals import MixtureOfNormals
from pyro_vae.posteriors.nearest_code import NearestCode
from pyro_vae.posteriors.neural_spline_flow import NeuralSplineFlow
from pyro_vae.posteriors.one_hot_categorical import OneHotCategorical
from pyro_vae.posteriors.planar_flow import PlanarFlow
from pyro_vae.posteriors.power_spherical import PowerSpherical
from pyro_vae.posteriors.product_of_one_hot_categoricals import ProductOfOneHotCategoricals
from pyro_vae.posteriors.relaxed_bernoulli import RelaxedBernoulli
from pyro_vae.posteriors.relaxed_one_hot_categorical import RelaxedOneHotCategorical
from pyro_vae.posteriors.semi_amortized import SemiAmortized
from pyro_vae.posteriors.straight_through_bernoulli import StraightThroughBernoulli
from pyro_vae.posteriors.straight_through_one_hot_categorical import StraightThroughOneHotCategorical
from pyro_vae.posteriors.student_t import StudentT
from pyro_vae.posteriors.sylvester_flow import SylvesterFlow
from pyro_vae.posteriors.von_mises_fisher import VonMisesFisher
from pyro_vae.posteriors.wrapped_normal import WrappedNormal

__all__ = [
    "Bernoulli",
    "Dirichlet",
    "FullRankNormal",
    "HouseholderFlow",
    "InverseAutoregressiveFlow",
    "Laplace",
    "LogisticNormal",
    "LowRankNormal",
    "MeanFieldNormal",
    "MixtureOfNormals",
    "NearestCode",
    "NeuralSplineFlow",
    "OneHotCategorical",
    "PlanarFlow",
    "PowerSpherical",
    "ProductOfOneHotCategoricals",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "SemiAmortized",
    "StraightThroughBernoulli",
    "StraightThroughOneHotCategorical",
    "StudentT",
    "SylvesterFlow",
    "VonMisesFisher",
    "WrappedNormal",
]
