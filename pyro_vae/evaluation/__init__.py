"""Evaluation of any program: log-likelihood, what the latents carry, and the comparison of estimators."""

from pyro_vae.evaluation.budgets import Particles, Seconds, Steps
from pyro_vae.evaluation.compare import compare_estimators
from pyro_vae.evaluation.latents import latents
from pyro_vae.evaluation.log_likelihood import log_likelihood
from pyro_vae.evaluation.pareto import pareto_k
from pyro_vae.evaluation.train_under import train_under

__all__ = [
    "Particles",
    "Seconds",
    "Steps",
    "compare_estimators",
    "latents",
    "log_likelihood",
    "pareto_k",
    "train_under",
]
