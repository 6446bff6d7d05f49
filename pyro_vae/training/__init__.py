"""Training: ``fit``, the SVI behind it, schedules, callbacks and the errors that stop a run."""

from pyro_vae._util.denormals import flush_denormals
from pyro_vae.training.callbacks import Callback, EarlyStopping, Log
from pyro_vae.training.checkpoint.run_folder import RunInUseError, SaveError
from pyro_vae.training.checkpoint.serialization import CheckpointError
from pyro_vae.training.checkpoint.signals import Interrupted
from pyro_vae.training.compile.compilers import eager_graph, inductor
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.fit import fit
from pyro_vae.training.groups import ParameterGroups
from pyro_vae.training.history import History
from pyro_vae.training.precision import TF32, Autocast
from pyro_vae.training.ranks.collectives import LostRankError
from pyro_vae.training.schedules import Cosine, Cyclical, Linear, MultiStep, Sigmoid
from pyro_vae.training.svi import SVI, NonFiniteError
from pyro_vae.training.table_defaults import PURPOSES, AnomalyDefaults, ImputationDefaults, TableDefaults
from pyro_vae.training.tensorboard import TensorBoard

__all__ = [
    "SVI",
    "TF32",
    "Autocast",
    "Batches",
    "Callback",
    "CheckpointError",
    "Cosine",
    "Cyclical",
    "EarlyStopping",
    "History",
    "ImputationDefaults",
    "Interrupted",
    "Linear",
    "Log",
    "LostRankError",
    "MultiStep",
    "NonFiniteError",
    "ParameterGroups",
    "RunInUseError",
    "SaveError",
    "Sigmoid",
    "PURPOSES",
    "AnomalyDefaults",
    "TableDefaults",
    "TensorBoard",
    "eager_graph",
    "fit",
    "flush_denormals",
    "inductor",
]
