"""From draws of a gradient to a row of the comparison."""

from __future__ import annotations

import math

from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae.evaluation.laboratory.comparison import GradientRow, Row
from pyro_vae.evaluation.laboratory.gradients import Gradients, Moments
from pyro_vae.evaluation.laboratory.reference import Reference

__all__ = ["row_of"]


def row_of(name: str, estimator: PyroELBO, drawn: Gradients, reference: Reference, rough: str, **costs: float) -> Row:
    """Make a row of the table from what was drawn."""
    missing = {f"bias and cosine of the {key}": why for key, why in reference.missing.items()}
    if rough:
        missing["own bias"] = rough
    bound, error = float(drawn.bound.mean), math.sqrt(drawn.bound.noise)
    if not math.isfinite(bound):
        bound = error = math.nan
        missing["bound and gap"] = f"the loss of {type(estimator).__name__} is no number"
    parts = {}
    for key, moments in drawn.groups.items():
        snr, variance = ratio(moments), float(moments.variance.sum())
        bias, noise, cosine = against(moments, reference.groups.get(key))
        own, own_error = own_bias(drawn.slopes.get(key))
        parts[key] = GradientRow(snr, variance, bias, noise, cosine, own, own_error)
    gap_error = math.hypot(error, reference.error)
    gap = reference.value - bound
    return Row(name, estimator.num_particles, bound, error, gap, gap_error, **parts, **costs, missing=missing)


def ratio(moments: Moments) -> float:
    """Return the signal-to-noise ratio, the mean over parameters that have a gradient."""
    mean, deviation = moments.mean.abs(), moments.variance.sqrt()
    alive = (mean > 0) | (deviation > 0)
    return float((mean / deviation)[alive].mean()) if alive.any() else math.nan


def against(moments: Moments, reference: Moments | None) -> tuple[float, float, float]:
    """Return bias, its noise and cosine of a mean gradient, norms corrected for noise."""
    if reference is None:
        return math.nan, math.nan, math.nan
    noise = moments.noise + reference.noise
    size, other = length(moments), length(reference)
    bias = math.sqrt(max(float((moments.mean - reference.mean).square().sum()) - noise, 0.0))
    product = float(moments.mean @ reference.mean)
    cosine = max(-1.0, min(1.0, product / (size * other))) if size * other > 0 else math.nan
    return (bias / other, math.sqrt(noise) / other, cosine) if other > 0 else (math.nan, math.nan, cosine)


def length(moments: Moments) -> float:
    """Return the norm of the expectation, 0 where the mean is within its noise."""
    square = float(moments.mean.square().sum())
    return math.sqrt(square - moments.noise) if square > 2 * moments.noise else 0.0


def own_bias(slopes: Tensor | None) -> tuple[float, float]:
    """Return the relative error of a gradient along its direction, and its standard error."""
    if slopes is None:
        return math.nan, math.nan
    objective, gradient = slopes
    errors = (slopes.std(1) / math.sqrt(slopes.shape[1])).tolist()
    size = float(gradient.mean())
    if size < 3 * errors[1]:
        return math.nan, math.nan
    apart = gradient - objective
    return float(apart.mean()) / size, float(apart.std()) / math.sqrt(len(apart)) / size
