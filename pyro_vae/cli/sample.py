"""The command ``pyro-vae sample``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor

from pyro_vae import tasks
from pyro_vae.cli.choices import UsageError, look_up, usage
from pyro_vae.cli.shared import Job, cells_of
from pyro_vae.config import run
from pyro_vae.config.data import load
from pyro_vae.config.rows import decode
from pyro_vae.data.covariates import encode_covariates
from pyro_vae.programs import VAE


def sample(argv: list[str]) -> int:
    """Generate new data with a run."""
    choices = Job.options("sample", argv, takes_input=False)
    add = choices.option
    add("--num-samples", type=PositiveInt, default=16, help="number of new examples")
    add("--mean", action="store_true", help="means of p(x given z) instead of samples; not for tables")
    add("--temperature", type=PositiveFloat, default=1.0, help="below 1 the data are more typical and less varied")
    add("--class", type=str | None, help="class of the new data, for a run with classes")
    add("--covariates", type=str | None, help="values such as site=north,age=40; by default those of training rows")
    add("--library", type=PositiveFloat | None, help="total count of each example, for programs with a library size")
    job = Job.start(choices)
    settings, columns, one_hot = job.settings, run.columns(job.config), class_of(job)
    context = covariates_of(job)
    if columns and settings.mean:
        raise UsageError("mean: the labels of a table have no mean. Leave it out to sample rows")
    if settings.temperature != 1 and not isinstance(job.program, VAE):
        raise UsageError(f"temperature: expected 1 for a {type(job.program).__name__}, got {settings.temperature}")
    options: dict[str, Any] = {} if settings.library is None else {"library": settings.library}
    parts = []
    for start, n in job.chunks(settings.num_samples):
        given: dict[str, Any] = {"y": one_hot[0].expand(n, -1)} if one_hot else {}
        given |= {} if context is None else {"context": [context[torch.arange(start, start + n) % len(context)]]}
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


def covariates_of(job: Job) -> Tensor | None:
    """Return the chosen covariates as one row, or those of the training rows, in random order; None without any."""
    text, known = job.settings.covariates, run.columns(job.config, "context")
    if not known:
        if text is not None:
            raise UsageError(f"covariates: expected none, as the run in {job.settings.run} has none, got {text}")
        return None
    if text is None:
        rows = load(job.config).context.train.x
        return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(job.settings.seed))]
    names = [column.name for column in known]
    given = dict(cell.partition("=")[::2] for cell in cells_of(text))
    if set(given) != set(names):
        raise UsageError(f"covariates: expected a value for each of {', '.join(names)}, such as {names[0]}=..., got {text}")
    return usage(encode_covariates, "--covariates", {n: np.array([v], object) for n, v in given.items()}, known)[0]
