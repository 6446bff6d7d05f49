"""The command ``pyro-vae forecast``."""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse.typing import OpenUnitInterval, PositiveInt

from pyro_vae import tasks
from pyro_vae.cli.shared import Job, save
from pyro_vae.config.program import takes_sequences
from pyro_vae.config.rows import written


def forecast(argv: list[str]) -> int:
    """Forecast the steps after the end of each sequence: means and intervals."""
    choices = Job.options("forecast", argv)
    add = choices.option
    add("--num-steps", type=PositiveInt, required=True, help="number of steps after the end of each sequence")
    add("--num-samples", type=PositiveInt, default=200, help="samples of each sequence")
    add("--level", type=OpenUnitInterval, default=0.9, help="probability of the interval of each entry")
    add("--figure", type=str | None, help="new file .png, .pdf or .svg with the first sequences and their forecasts")
    job = Job.start(choices)
    if not takes_sequences(job.config):
        raise ValueError(
            f"run: expected a program of sequences in {job.settings.run}, got a {type(job.program).__name__}. Train "
            "one with `pyro-vae train --program SequenceVAE`"
        )
    rows, settings = job.rows(), job.settings
    how = {"num_steps": settings.num_steps, "num_samples": settings.num_samples, **job.noise}
    found = tasks.forecast(job.program, rows.data(), **how)
    lower, upper = found.interval(settings.level)
    ahead = torch.full((len(rows),), settings.num_steps)
    job.target.write(written(job.target.kind, {"mean": found.mean, "lower": lower, "upper": upper}, ahead))
    if settings.figure:
        from pyro_vae.plots import forecasts  # matplotlib takes a sixth of the import time

        save(forecasts(rows.x, found, rows.context[0], level=settings.level), Path(settings.figure))
    return 0
