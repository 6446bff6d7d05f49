"""Variational autoencoders as Pyro programs: prior x likelihood x posterior x estimator, swapped freely."""

from pyro_vae import (
    columns,
    data,
    distributions,
    estimators,
    evaluation,
    likelihoods,
    missing_nets,
    nets,
    plots,
    posteriors,
    priors,
    programs,
    scales,
    tasks,
    testing,
    topic_nets,
    training,
)
from pyro_vae.conditional import Conditional
from pyro_vae.programs import VAE, Program
from pyro_vae.run import load
from pyro_vae.training import fit

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Conditional",
    "Program",
    "columns",
    "data",
    "distributions",
    "estimators",
    "evaluation",
    "fit",
    "likelihoods",
    "load",
    "missing_nets",
    "nets",
    "plots",
    "posteriors",
    "priors",
    "programs",
    "scales",
    "tasks",
    "testing",
    "topic_nets",
    "training",
]
