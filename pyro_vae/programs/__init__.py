"""Programs: Pyro models and guides made of parts, the only place with plates and sample statements."""

from pyro_vae.distributions import missing
from pyro_vae.programs.autoencoder import Autoencoder
from pyro_vae.programs.backward_gru import BackwardGRU
from pyro_vae.programs.bayesian_decoder import BayesianDecoder
from pyro_vae.programs.count_vae import CountVAE
from pyro_vae.programs.function_program import FunctionProgram
from pyro_vae.programs.hierarchical import BottomUp, Hierarchical, TopDown
from pyro_vae.programs.missing_not_at_random import MissingNotAtRandom, SelfMasking
from pyro_vae.programs.mixture_vae import MixtureVAE, Responsibilities
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import Program
from pyro_vae.programs.semi_supervised import SemiSupervised
from pyro_vae.programs.sequence_vae import SequenceVAE
from pyro_vae.programs.stacked_semi_supervised import StackedSemiSupervised
from pyro_vae.programs.topic_model import Perplexity, TopicModel
from pyro_vae.programs.vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "BackwardGRU",
    "BayesianDecoder",
    "BottomUp",
    "CountVAE",
    "DataPlate",
    "FunctionProgram",
    "Hierarchical",
    "MissingNotAtRandom",
    "MixtureVAE",
    "Perplexity",
    "Program",
    "Responsibilities",
    "SelfMasking",
    "SemiSupervised",
    "SequenceVAE",
    "StackedSemiSupervised",
    "TopDown",
    "TopicModel",
    "announce",
    "missing",
    "observe",
]
