"""The command ``pyro-vae embed``."""

from __future__ import annotations

import torch
from jsonargparse.typing import PositiveInt

from pyro_vae import tasks
from pyro_vae.cli.shared import Job
from pyro_vae.config.program import takes_sequences


def embed(argv: list[str]) -> int:
    """Return the mean and standard deviation of each latent given each example."""
    choices = Job.options("embed", argv)
    choices.option(
        "--num-samples", type=PositiveInt, default=64, help="samples where there is no closed form, at least 2"
    )
    job = Job.start(choices)
    rows = job.rows()
    found = tasks.embed(job.program, rows.data(), num_samples=job.settings.num_samples, **job.noise)
    if takes_sequences(job.config):  # the latents of steps after the end of a sequence are those of no data
        after = torch.arange(rows.x.shape[1]) >= rows.context[0].unsqueeze(-1)
        for moment in (found.mean, found.std):
            moment[after.repeat_interleave(moment.shape[1] // rows.x.shape[1], 1)] = torch.nan
    both = rows.spread(torch.stack([found.mean, found.std], 1)).numpy()
    if job.target.kind == ".npy":
        job.target.write(both)
    else:
        names = [f"{name}.{what}" for what in ("mean", "std") for name in found.names]
        job.target.write(rows.labelled(dict(zip(names, both.reshape(len(both), -1).T, strict=True))))
    return 0
