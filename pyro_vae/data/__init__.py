"""Data sets as three splits of tensors, with the ways of turning grey levels into bits.

`load` reads a data set by name, `names` lists the names. The 8x8 digits come with the package;
the others are read from the folder named by the environment variable PYRO_VAE_DATA or, where it
is not set, downloaded once, and checked against a checksum either way.
"""

from pyro_vae.data.binarize import Binarization, DrawBits, Dynamic, Static, Threshold
from pyro_vae.data.dataset import Dataset, Split
from pyro_vae.data.registry import load, names
from pyro_vae.data.tables.table import Table

__all__ = ["Binarization", "Dataset", "DrawBits", "Dynamic", "Split", "Static", "Table", "Threshold", "load", "names"]
