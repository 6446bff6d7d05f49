"""Data sets as three splits of tensors, tables with columns of mixed types, and ways to binarize grey levels.

The 8x8 digits come with the package. The other data sets are read from the folder that the environment variable
PYRO_VAE_DATA names, or downloaded once where it is not set. Their checksums are verified either way.
"""

from pyro_vae.data import tables
from pyro_vae.data.binarize import Binarization, DrawBits, Dynamic, Static, Threshold
from pyro_vae.data.dataset import Dataset, Split
from pyro_vae.data.examples import Examples
from pyro_vae.data.read import read
from pyro_vae.data.sources import load, names
from pyro_vae.data.tables import Table

__all__ = [
    "Binarization",
    "Dataset",
    "DrawBits",
    "Dynamic",
    "Examples",
    "Split",
    "Static",
    "Table",
    "Threshold",
    "load",
    "names",
    "read",
    "tables",
]
