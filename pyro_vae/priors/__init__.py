"""Priors p(z): ``Prior(latent, *, ...)``.

Unless a class says otherwise, the event shape is ``(latent,)``. The batch shape is ``()``, or ``batch`` given context
tensors ``(*batch, width)`` if the prior was built with ``context``.
"""

from pyro_vae.priors.affine_coupling_flow import AffineCouplingFlow
from pyro_vae.priors.autoregressive_prior import AutoregressivePrior
from pyro_vae.priors.bernoulli import Bernoulli
from pyro_vae.priors.conditional_normal import ConditionalNormal
from pyro_vae.priors.dirichlet import Dirichlet
from pyro_vae.priors.exemplar_prior import ExemplarPrior
from pyro_vae.priors.flow_matching import FlowMatching
from pyro_vae.priors.hyperspherical_uniform import HypersphericalUniform
from pyro_vae.priors.laplace import Laplace
from pyro_vae.priors.lars import Lars
from pyro_vae.priors.logistic_normal import LogisticNormal
from pyro_vae.priors.masked_autoregressive_flow import MaskedAutoregressiveFlow
from pyro_vae.priors.mixture_of_normals import MixtureOfNormals
from pyro_vae.priors.neural_spline_flow import NeuralSplineFlow
from pyro_vae.priors.normal import Normal
from pyro_vae.priors.one_hot_categorical import OneHotCategorical
from pyro_vae.priors.pixel_cnn import PixelCNN
from pyro_vae.priors.product_of_one_hot_categoricals import ProductOfOneHotCategoricals
from pyro_vae.priors.standard_normal import StandardNormal
from pyro_vae.priors.student_t import StudentT
from pyro_vae.priors.vamp_prior import VampPrior
from pyro_vae.priors.wrapped_normal import WrappedNormal
from pyro_vae.priors.zuko_flow import ZukoFlow

__all__ = [
    "AffineCouplingFlow",
    "AutoregressivePrior",
    "Bernoulli",
    "ConditionalNormal",
    "Dirichlet",
    "ExemplarPrior",
    "FlowMatching",
    "HypersphericalUniform",
    "Laplace",
    "Lars",
    "LogisticNormal",
    "MaskedAutoregressiveFlow",
    "MixtureOfNormals",
    "NeuralSplineFlow",
    "Normal",
    "OneHotCategorical",
    "PixelCNN",
    "ProductOfOneHotCategoricals",
    "StandardNormal",
    "StudentT",
    "VampPrior",
    "WrappedNormal",
    "ZukoFlow",
]
