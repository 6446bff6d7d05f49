"""Evaluation of any program: bounds on its evidence, what its latents carry, calibration, samples, representations."""

from pyro_vae.evaluation.budgets import Particles, Seconds, Steps
from pyro_vae.evaluation.calibration import calibration
from pyro_vae.evaluation.compare import compare_estimators
from pyro_vae.evaluation.disentanglement import disentanglement, disentanglement_of_codes
from pyro_vae.evaluation.inception import Inception
from pyro_vae.evaluation.inference_gaps import inference_gaps
from pyro_vae.evaluation.latents import latents
from pyro_vae.evaluation.log_likelihood import log_likelihood
from pyro_vae.evaluation.marginal_bounds import marginal_bounds
from pyro_vae.evaluation.pareto import pareto_k
from pyro_vae.evaluation.predictive import predictive_check
from pyro_vae.evaluation.rate_distortion import rate_distortion
from pyro_vae.evaluation.representation import clustering_accuracy, clustering_scores, representation
from pyro_vae.evaluation.samples import samples
from pyro_vae.evaluation.set_metrics import frechet_distance, kernel_distance, precision_recall
from pyro_vae.evaluation.train_under import train_under

__all__ = [
    "Inception",
    "Particles",
    "Seconds",
    "Steps",
    "calibration",
    "clustering_accuracy",
    "clustering_scores",
    "compare_estimators",
    "disentanglement",
    "disentanglement_of_codes",
    "frechet_distance",
    "inference_gaps",
    "kernel_distance",
    "latents",
    "log_likelihood",
    "marginal_bounds",
    "pareto_k",
    "precision_recall",
    "predictive_check",
    "rate_distortion",
    "representation",
    "samples",
    "train_under",
]
