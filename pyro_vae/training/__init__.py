"""Training: ``fit``, the engine below it, schedules and callbacks."""

from pyro_vae.training.batches import Batches
from pyro_vae.training.callbacks import Callback, EarlyStopping
from pyro_vae.training.checkpoint import CheckpointError
from pyro_vae.training.collectives import LostRankError
from pyro_vae.training.compilers import inductor, recorded
from pyro_vae.training.denormals import flush_denormals
from pyro_vae.training.durable import SaveError
from pyro_vae.training.fit import fit
from pyro_vae.training.history import History
from pyro_vae.training.lock import RunInUseError
from pyro_vae.training.precision import TF32, LayersIn
from pyro_vae.training.rates import Cosine, Stages
from pyro_vae.training.schedules import Capacity, Cyclical, Linear, Sigmoid
from pyro_vae.training.signals import Interrupted
from pyro_vae.training.svi import SVI, NonFiniteError
from pyro_vae.training.tensorboard import TensorBoard

__all__ = [
    "SVI",
    "TF32",
    "Batches",
    "Callback",
    "Capacity",
    "CheckpointError",
    "Cosine",
    "Cyclical",
    "EarlyStopping",
    "History",
    "Interrupted",
    "LayersIn",
    "Linear",
    "LostRankError",
    "NonFiniteError",
    "RunInUseError",
    "SaveError",
    "Sigmoid",
    "Stages",
    "TensorBoard",
    "fit",
    "flush_denormals",
    "inductor",
    "recorded",
]
