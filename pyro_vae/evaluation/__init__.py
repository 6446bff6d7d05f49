"""Evaluation of any program: bounds on its evidence, what its latents carry, calibration, samples, representations."""

from pyro_vae.evaluation.laboratory.budgets import Particles, Seconds, Steps
from pyro_vae.evaluation.laboratory.compare import compare_estimators
from pyro_vae.evaluation.laboratory.train_under import train_under
from pyro_vae.evaluation.likelihood.log_likelihood import log_likelihood
from pyro_vae.evaluation.likelihood.marginal_bounds import marginal_bounds
from pyro_vae.evaluation.likelihood.pareto import pareto_k
from pyro_vae.evaluation.likelihood.rate_distortion import rate_distortion
from pyro_vae.evaluation.posterior.calibration import calibration
from pyro_vae.evaluation.posterior.inference_gaps import inference_gaps
from pyro_vae.evaluation.posterior.latents import latents
from pyro_vae.evaluation.posterior.predictive import predictive_check
from pyro_vae.evaluation.representation.disentanglement import disentanglement, disentanglement_of_codes
from pyro_vae.evaluation.representation.representation import clustering_accuracy, clustering_scores, representation
from pyro_vae.evaluation.samples.inception import Inception
from pyro_vae.evaluation.samples.samples import samples
from pyro_vae.evaluation.samples.set_metrics import frechet_distance, kernel_distance, precision_recall

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
