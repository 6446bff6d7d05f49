"""The command ``pyro-vae sample``."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor

from pyro_vae import tasks
from pyro_vae.cli.choices import UsageError, look_up
from pyro_vae.cli.shared import Job
from pyro_vae.config import run
from pyro_vae.config.rows import decode
from pyro_vae.programs import VAE


def sample(argv: list[str]) -> int:
    """Generate new data with a run."""
    choices = Job.options("sample", argv, takes_input=False)
    add = choices.option
    add("--num-samples", type=PositiveInt, default=16, help="number of new examples")
    add("--mean", action="store_true", help="means of p(x given z) instead of samples; not for tables")
    add("--temperature", type=PositiveFloat, default=1.0, help="below 1 the data are more typical and less varied")
    add("--class", type=str | None, help="class of the new data, for a run with classes")
    add("--library", type=PositiveFloat | None, help="total count of each example, for programs with a library size")
    job = Job.start(choices)
    settings, columns, one_hot = job.settings, run.columns(job.config), class_of(job)
    if columns and settings.mean:
        raise UsageError("mean: the labels of a table have no mean. Leave it out to sample rows")
    if settings.temperature != 1 and not isinstance(job.program, VAE):
        raise UsageError(f"temperature: expected 1 for a {type(job.program).__name__}, got {settings.temperature}")
    options: dict[str, Any] = {} if settings.library is None else {"library": settings.library}
    # a program whose context is another quantity, such as the batch of a cell, takes the class by name
    named = "y" in inspect.signature(job.program.sample).parameters
    parts = []
    for start, n in job.chunks(settings.num_samples):
        rows = [row.expand(n, -1) for row in one_hot]
        given = {"y": rows[0]} if named and rows else {"context": rows}
        how = {"temperature": settings.temperature, "mean": settings.mean, "seed": settings.seed + start}
        parts.append(tasks.generate(job.program, n, **how, **options, **given))
    x = torch.cat(parts).cpu()
    job.target.write(decode(columns, x) if columns else x.numpy())
    return 0


def class_of(job: Job) -> list[Tensor]:
    """Return the chosen class as a one-hot row, or nothing if none was chosen."""
    name, classes = job.settings["class"], [str(c) for c in job.config.get("classes", ())]
    if name is None:
        return []
    if not classes:
        raise UsageError(f"class: expected none, as the run in {job.settings.run} has no classes, got {name}")
    look_up("class", name, dict.fromkeys(classes))
    return [torch.eye(len(classes))[[classes.index(name)]]]
