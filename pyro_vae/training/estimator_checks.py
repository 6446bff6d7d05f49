"""Checks that an estimator can train a program, before the first step."""

from __future__ import annotations

from typing import Any

from pyro.infer import ELBO as PyroELBO
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO, TraceTailAdaptive_ELBO

from pyro_vae.estimators import Estimator
from pyro_vae.estimators.over_batch import OverBatch

__all__ = ["check_estimator", "check_loss", "check_weightable"]


def check_estimator(estimator: Any) -> None:
    """Raise a TypeError unless an object estimates a bound in each step, and without torch.jit."""
    if not isinstance(estimator, PyroELBO):
        raise TypeError(
            "estimator: expected an object of pyro_vae.estimators or pyro.infer, such as "
            f"pyro_vae.estimators.ELBO(), got {estimator!r}"
        )
    if type(estimator).__name__.startswith("Jit"):
        raise TypeError(
            f"estimator: expected one without torch.jit, got {type(estimator).__name__}. Use its variant without "
            "Jit, or an estimator of pyro_vae.estimators with compile=True"
        )


def check_loss(estimator: Any) -> None:
    """Raise a TypeError if an estimator has a gradient but no loss, so that its training cannot be monitored."""
    if isinstance(estimator, TraceTailAdaptive_ELBO):
        raise TypeError(
            f"estimator: expected one that estimates a bound, got {type(estimator).__name__}, which has a gradient "
            "but no loss. Use pyro_vae.estimators.CUBO or Renyi, or train by pyro.infer.SVI"
        )


def check_weightable(estimator: Any) -> None:
    """Raise a ValueError if the loss of an estimator is not the sum of the scaled bounds of the examples."""
    if isinstance(estimator, Estimator):
        found, weightable = type(estimator).__name__, not isinstance(estimator, OverBatch)
    else:
        found = f"{type(estimator).__name__} of pyro.infer"
        weightable = type(estimator) in (Trace_ELBO, TraceMeanField_ELBO)
    if not weightable:
        raise ValueError(
            f"weights: expected an estimator whose bound is a mean over examples, got {found}, which compares the "
            "rows of a batch or scales inside a logarithm. Leave weights out, or use another estimator of "
            "pyro_vae.estimators"
        )
