"""The command ``pyro-vae score``."""

from __future__ import annotations

import torch

from pyro_vae import tasks
from pyro_vae.cli.shared import Job
from pyro_vae.config import parts


def score(argv: list[str]) -> int:
    """Score how anomalous each example is, in nats: higher is more unusual."""
    choices = Job.options("score", argv)
    shelf = {name: cls for name, cls in parts.shelf(tasks, tasks.Score).items() if not parts.required(cls)}
    choices.add("score", shelf, "ImportanceWeighted")
    job = Job.start(choices)
    how = choices.chosen["score"](**vars(job.settings.score))
    x, seed = job.rows().x, job.settings.seed
    found = [how(job.program, x[start : start + n], seed=seed) for start, n in job.chunks(len(x))]
    values = torch.cat(found).numpy()
    job.target.write(values if job.target.kind == ".npy" else {"score": values})
    return 0
