"""Evaluation of any program: likelihood, estimators, posterior, samples and representations.

Evaluation never changes weights, buffers, modes or the global random state. Calls from several threads run one after
the other and return the same results as in one thread: Pyro's handlers and torch's random state belong to the process.
"""

from pyro_vae.evaluation.laboratory.budgets import Particles, Seconds, Steps
from pyro_vae.evaluation.laboratory.compare import compare_estimators
from pyro_vae.evaluation.laboratory.comparison import Comparison
from pyro_vae.evaluation.laboratory.train_under import TrainingComparison, train_under
from pyro_vae.evaluation.likelihood.importance_sampling import LogLikelihood, pareto_k
from pyro_vae.evaluation.likelihood.log_likelihood import log_likelihood
from pyro_vae.evaluation.likelihood.marginal_bounds import MarginalBounds, marginal_bounds
from pyro_vae.evaluation.likelihood.perplexity import Perplexity, perplexity
from pyro_vae.evaluation.posterior.calibration import Calibration, calibration
from pyro_vae.evaluation.posterior.inference_gaps import InferenceGaps, inference_gaps
from pyro_vae.evaluation.posterior.latents import Latents, latents
from pyro_vae.evaluation.posterior.predictive_check import PredictiveCheck, predictive_check
from pyro_vae.evaluation.posterior.rate_distortion import RateDistortion, rate_distortion
from pyro_vae.evaluation.posterior.refined import Refined
from pyro_vae.evaluation.representation.disentanglement import (
    Disentanglement,
    disentanglement,
    disentanglement_of_means,
)
from pyro_vae.evaluation.representation.representation import (
    Representation,
    clustering_accuracy,
    clustering_scores,
    representation,
)
from pyro_vae.evaluation.result import PerExample, Result
from pyro_vae.evaluation.samples.features import Inception
from pyro_vae.evaluation.samples.samples import Samples, samples
from pyro_vae.evaluation.samples.set_metrics import frechet_distance, kernel_distance, precision_recall

__all__ = [
    "Calibration",
    "Comparison",
    "Disentanglement",
    "Inception",
    "InferenceGaps",
    "Latents",
    "LogLikelihood",
    "MarginalBounds",
    "Particles",
    "PerExample",
    "Perplexity",
    "PredictiveCheck",
    "RateDistortion",
    "Refined",
    "Representation",
    "Result",
    "Samples",
    "Seconds",
    "Steps",
    "TrainingComparison",
    "calibration",
    "clustering_accuracy",
    "clustering_scores",
    "compare_estimators",
    "disentanglement",
    "disentanglement_of_means",
    "frechet_distance",
    "inference_gaps",
    "kernel_distance",
    "latents",
    "log_likelihood",
    "marginal_bounds",
    "pareto_k",
    "perplexity",
    "precision_recall",
    "predictive_check",
    "rate_distortion",
    "representation",
    "samples",
    "train_under",
]
