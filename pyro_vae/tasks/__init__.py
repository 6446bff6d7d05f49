"""What a trained VAE is used for: new data, missing entries, anomalies, classes and representations."""

from pyro_vae.tasks.aggregate_posterior import AggregatePosterior
from pyro_vae.tasks.generate import generate, tempered
from pyro_vae.tasks.paths import geometric, interpolate, linear, spherical, traverse

__all__ = [
    "AggregatePosterior",
    "generate",
    "geometric",
    "interpolate",
    "linear",
    "spherical",
    "tempered",
    "traverse",
]
