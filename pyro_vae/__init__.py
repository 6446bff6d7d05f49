"""Variational autoencoders as Pyro programs: any prior, likelihood, posterior and estimator together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pyro_vae import (
    data,
    distributions,
    estimators,
    evaluation,
    likelihoods,
    nets,
    posteriors,
    priors,
    programs,
    scales,
    tasks,
    testing,
    trace,
    training,
)
from pyro_vae._util.versions import VERSION
from pyro_vae.conditional import Conditional
from pyro_vae.config.load import load
from pyro_vae.programs import VAE, Program
from pyro_vae.programs.amortized import amortize
from pyro_vae.training.fit import fit

if TYPE_CHECKING:
    from pyro_vae import plots

__version__ = VERSION

__all__ = [
    "VAE",
    "Conditional",
    "Program",
    "amortize",
    "data",
    "distributions",
    "estimators",
    "evaluation",
    "fit",
    "likelihoods",
    "load",
    "nets",
    "plots",
    "posteriors",
    "priors",
    "programs",
    "scales",
    "tasks",
    "testing",
    "trace",
    "training",
]


def __getattr__(name: str) -> Any:
    # matplotlib takes a fifth of the import time, and most programs plot nothing
    if name == "plots":
        return importlib.import_module("pyro_vae.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
