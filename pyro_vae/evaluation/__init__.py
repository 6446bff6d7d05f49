"""Evaluation of any program: log-likelihood and what the latents carry."""

from pyro_vae.evaluation.latents import latents
from pyro_vae.evaluation.log_likelihood import log_likelihood

__all__ = ["latents", "log_likelihood"]
