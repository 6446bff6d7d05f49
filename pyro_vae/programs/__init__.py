"""Programs: Pyro models and guides built from the parts. The only place of plates and sample statements."""

from pyro_vae.programs import missing
from pyro_vae.programs.autoencoder import Autoencoder
from pyro_vae.programs.hierarchical import BottomUp, Hierarchical, TopDown
from pyro_vae.programs.missing_not_at_random import MissingNotAtRandom, SelfMasking
from pyro_vae.programs.program import Functions, Program
from pyro_vae.programs.semi_supervised import MixtureVAE, SemiSupervised
from pyro_vae.programs.vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "BottomUp",
    "Functions",
    "Hierarchical",
    "MissingNotAtRandom",
    "MixtureVAE",
    "Program",
    "SelfMasking",
    "SemiSupervised",
    "TopDown",
    "missing",
]
