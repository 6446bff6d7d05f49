"""Training: ``fit``, the engine below it, schedules and callbacks."""

from pyro_vae._util.denormals import flush_denormals
from pyro_vae._util.durable import SaveError
from pyro_vae.training.callbacks import Callback, EarlyStopping
from pyro_vae.training.checkpoint.checkpoint import CheckpointError
from pyro_vae.training.checkpoint.lock import RunInUseError
from pyro_vae.training.checkpoint.signals import Interrupted
from pyro_vae.training.compile.compilers import inductor, recorded
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.fit import fit
from pyro_vae.training.history import History
from pyro_vae.training.precision import TF32, Autocast
from pyro_vae.training.ranks.collectives import LostRankError
from pyro_vae.training.rates import Cosine, MultiStep
from pyro_vae.training.schedules import Cyclical, Linear, Sigmoid
from pyro_vae.training.svi import SVI, NonFiniteError
from pyro_vae.training.tensorboard import TensorBoard

__all__ = [
    "SVI",
    "TF32",
    "Batches",
    "Callback",
    "CheckpointError",
    "Cosine",
    "Cyclical",
    "EarlyStopping",
    "History",
    "Interrupted",
    "Autocast",
    "Linear",
    "LostRankError",
    "NonFiniteError",
    "RunInUseError",
    "SaveError",
    "Sigmoid",
    "MultiStep",
    "TensorBoard",
    "fit",
    "flush_denormals",
    "inductor",
    "recorded",
]
