"""The command ``pyro-vae impute``."""

from __future__ import annotations

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from pyro_vae import tasks
from pyro_vae.cli.shared import Job
from pyro_vae.data import files


def impute(argv: list[str]) -> int:
    """Fill missing values (NaN, empty cells) given the observed ones."""
    choices = Job.options("impute", argv)
    add = choices.option
    add("--num-samples", type=NonNegativeInt, default=0, help="samples of each missing value instead of its mean")
    add("--num-particles", type=PositiveInt, default=1000, help="samples of the latents per example")
    job = Job.start(choices)
    rows, settings = job.rows(), job.settings
    n = settings.num_samples
    found = tasks.impute(job.program, rows.data(), num_particles=settings.num_particles, num_samples=n, **job.noise)
    if not n:
        job.target.write(rows.filled(rows.spread(found.x), job.target.kind))
    elif rows.cells is None and job.target.kind != ".csv":
        job.target.write(torch.stack([rows.spread(x) for x in found.samples]).numpy())
    else:
        job.target.write(stacked([rows.filled(rows.spread(x), job.target.kind) for x in found.samples]))
    return 0


def stacked(tables: list[files.Values]) -> dict[str, np.ndarray]:
    """Return imputed tables below each other, with the number of each table in the first column."""
    tables = [t if isinstance(t, dict) else files.to_columns(t) for t in tables]
    number = np.repeat(np.arange(len(tables)), len(next(iter(tables[0].values()))))
    return {"sample": number, **{name: np.concatenate([t[name] for t in tables]) for name in tables[0]}}
