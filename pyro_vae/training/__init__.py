"""Training: ``fit``, the engine below it, schedules and callbacks."""

from pyro_vae.training.batches import Batches
from pyro_vae.training.callbacks import Callback, EarlyStopping
from pyro_vae.training.collectives import LostRankError
from pyro_vae.training.fit import fit
from pyro_vae.training.history import History
from pyro_vae.training.schedules import Capacity, Cyclical, Linear, Sigmoid
from pyro_vae.training.svi import SVI, NonFiniteError

__all__ = [
    "SVI",
    "Batches",
    "Callback",
    "Capacity",
    "Cyclical",
    "EarlyStopping",
    "History",
    "Linear",
    "LostRankError",
    "NonFiniteError",
    "Sigmoid",
    "fit",
]
