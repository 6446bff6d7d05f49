"""All figures of the library: functions that return a matplotlib ``Figure``, without pyplot or a backend."""

from pyro_vae.plots.checks import (
    factor_map,
    nearest_neighbours,
    perplexities,
    predictive_checks,
    rank_curves,
    scores,
)
from pyro_vae.plots.evaluations import inference_gaps, latent_units, log_likelihoods, marginal_bounds, rate_distortion
from pyro_vae.plots.images import image_grid, image_rows, is_image, reconstructions, vectors
from pyro_vae.plots.latents import latent_map
from pyro_vae.plots.sequences import forecasts, sequences
from pyro_vae.plots.training import comparison, training_comparison, training_curve

__all__ = [
    "comparison",
    "factor_map",
    "forecasts",
    "image_grid",
    "image_rows",
    "inference_gaps",
    "is_image",
    "latent_map",
    "latent_units",
    "log_likelihoods",
    "marginal_bounds",
    "nearest_neighbours",
    "perplexities",
    "predictive_checks",
    "rank_curves",
    "rate_distortion",
    "reconstructions",
    "scores",
    "sequences",
    "training_comparison",
    "training_curve",
    "vectors",
]
