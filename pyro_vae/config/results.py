"""The results of a run on its test data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae import evaluation, tasks
from pyro_vae._util.atomic_files import write_file
from pyro_vae.estimators import ReinforceLOO
from pyro_vae.evaluation.over import over
from pyro_vae.programs import Program

__all__ = ["results", "write_results"]

#: Samples of the latents per example for the bound and its two terms.
NUM_SAMPLES = 16


def results(
    program: Program, x: Any, y: Tensor | None = None, *, num_particles: int, seed: int = 0, progress: bool = True
) -> dict[str, Any]:
    """Evaluate a program on test data.

    Args:
        program: a trained Program
        x: rows of data, or a tuple ``(x, context)``
        y: class numbers of shape ``(n,)``, -1 where a label is missing; for a program with classes
        num_particles: samples of the latents per example for the log-likelihood
        seed: random seed
        progress: show a progress bar

    Returns:
        JSON values by name: ``mean`` and ``std_error`` of bound, reconstruction, KL and log-likelihood in nats per
        example, and of ``accuracy``, the share of rows with a label whose most probable class it is (with ``y``),
        ``num_examples``, and ``active_units`` of each latent site as ``[active, all]``.
    """
    elbo = ReinforceLOO(num_particles=NUM_SAMPLES)  # the bound of latents of every kind

    def bound(*batch: Tensor) -> Tensor:
        terms, _ = elbo.terms(program.model, program.guide, *batch).split()
        reconstruction = sum(terms.expect(site.log_p).mean(0) for site in terms.observed)
        kl = sum(terms.kl(site) for site in terms.latent)
        return torch.stack([reconstruction - kl, reconstruction, kl], -1)

    shares = over(program, x, bound, num_particles=NUM_SAMPLES, seed=seed, progress=progress).double()
    found = evaluation.log_likelihood(program, x, num_particles=num_particles, seed=seed, progress=progress)
    units = evaluation.latents(program, x, seed=seed, progress=progress)
    accuracy = {}
    if y is not None and (known := y >= 0).any():
        right = tasks.classify(program, x, seed=seed, progress=progress).predicted[known] == y[known]
        accuracy = {"accuracy": {**moments(right.double()), "num_examples": len(right)}}
    return {
        "num_examples": len(found.per_example),
        **{name: moments(column) for name, column in zip(("bound", "reconstruction", "kl"), shares.T, strict=True)},
        "log_likelihood": {
            **moments(found.per_example),
            "monte_carlo_error": found.monte_carlo_error if math.isfinite(found.monte_carlo_error) else None,
            "num_particles": found.num_particles,
        },
        **accuracy,
        "active_units": {site: [n, units.variance[site].numel()] for site, n in units.active.items()},
    }


def moments(values: Tensor) -> dict[str, float | None]:
    """Return the mean over examples and its standard error."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "std_error": error}


def write_results(run_dir: Path, found: dict[str, Any]) -> None:
    """Write ``results.json`` into the folder of a run."""
    write_file(run_dir / "results.json", f"{json.dumps(found, indent=2)}\n".encode())
