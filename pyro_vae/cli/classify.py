"""The command ``pyro-vae classify``."""

from __future__ import annotations

from pyro_vae import tasks
from pyro_vae.cli.shared import Job

__all__ = ["classify"]


def classify(argv: list[str]) -> int:
    """Return the probability of each class, with a run that has classes."""
    job = Job.start(Job.options("classify", argv))
    if not hasattr(job.program, "classify"):
        raise ValueError(
            f"run: expected a program with classes in {job.settings.run}, got a {type(job.program).__name__}. Train "
            "one with `pyro-vae train --program SemiSupervised`"
        )
    values = tasks.classify(job.program, job.rows().x, seed=job.settings.seed).probabilities.numpy()
    names = [str(c) for c in job.config["classes"]]
    job.target.write(values if job.target.kind == ".npy" else dict(zip(names, values.T, strict=True)))
    return 0
