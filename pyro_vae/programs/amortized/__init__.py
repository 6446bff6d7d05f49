"""Amortized guides for any Pyro model with a plate of data."""

from pyro_vae.programs.amortized.amortize import Amortized, amortize
from pyro_vae.programs.amortized.shared import Point
from pyro_vae.programs.amortized.structure import Forward, Inverse, MeanField

__all__ = ["Amortized", "Forward", "Inverse", "MeanField", "Point", "amortize"]
