"""Programs: Pyro models and guides made of parts, the only place with plates and sample statements."""

from pyro_vae.distributions import missing
from pyro_vae.programs.amortized import Amortized, Forward, Inverse, MeanField, Point
from pyro_vae.programs.autoencoder import Autoencoder
from pyro_vae.programs.backward_gru import BackwardGRU
from pyro_vae.programs.bayesian_decoder import BayesianDecoder
from pyro_vae.programs.bottom_up import BottomUp
from pyro_vae.programs.count_vae import CountVAE
from pyro_vae.programs.function_program import FunctionProgram
from pyro_vae.programs.hierarchical import Hierarchical
from pyro_vae.programs.missing_not_at_random import MissingNotAtRandom
from pyro_vae.programs.mixture_vae import MixtureVAE
from pyro_vae.programs.multilevel import Multilevel
from pyro_vae.programs.multimodal import (
    Joint,
    MixtureOfExperts,
    MixtureOfProducts,
    Multimodal,
    ProductOfExperts,
    modality_subsets,
)
from pyro_vae.programs.primitives import DataPlate, announce, observe, resample
from pyro_vae.programs.program import Program
from pyro_vae.programs.responsibilities import Responsibilities
from pyro_vae.programs.self_masking import SelfMasking
from pyro_vae.programs.semi_supervised import SemiSupervised
from pyro_vae.programs.semi_supervised_count_vae import SemiSupervisedCountVAE
from pyro_vae.programs.sequence_vae import SequenceVAE
from pyro_vae.programs.stacked_semi_supervised import StackedSemiSupervised
from pyro_vae.programs.top_down import TopDown
from pyro_vae.programs.topic_model import TopicModel
from pyro_vae.programs.vae import VAE
from pyro_vae.programs.vq_vae import VQVAE

__all__ = [
    "VAE",
    "VQVAE",
    "Amortized",
    "Autoencoder",
    "BackwardGRU",
    "BayesianDecoder",
    "BottomUp",
    "CountVAE",
    "DataPlate",
    "Forward",
    "FunctionProgram",
    "Hierarchical",
    "Inverse",
    "Joint",
    "MeanField",
    "MissingNotAtRandom",
    "MixtureOfExperts",
    "MixtureOfProducts",
    "MixtureVAE",
    "Multilevel",
    "Multimodal",
    "Point",
    "ProductOfExperts",
    "Program",
    "Responsibilities",
    "SelfMasking",
    "SemiSupervised",
    "SemiSupervisedCountVAE",
    "SequenceVAE",
    "StackedSemiSupervised",
    "TopDown",
    "TopicModel",
    "announce",
    "missing",
    "modality_subsets",
    "observe",
    "resample",
]
