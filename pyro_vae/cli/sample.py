"""The command ``pyro-vae sample``."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from pyro_vae import tasks
from pyro_vae.cli.choices import FiniteFloat, UsageError, look_up, usage
from pyro_vae.cli.shared import Job, cells_of
from pyro_vae.config import run
from pyro_vae.config.data import load
from pyro_vae.config.rows import decode, written
from pyro_vae.data.covariates import encode_covariates
from pyro_vae.programs import VAE


def sample(argv: list[str]) -> int:
    """Generate new data with a run."""
    choices = Job.options("sample", argv, takes_input=False)
    add = choices.option
    add("--num-samples", type=PositiveInt, default=16, help="number of new examples")
    add("--mean", action="store_true", help="means of p(x given z) instead of samples; not for tables")
    add("--temperature", type=FiniteFloat, default=1.0, help="below 1 the data are more typical and less varied")
    add("--class", type=str | None, help="class of the new data, for a run with classes")
    add("--covariates", type=str | None, help="values such as site=north,age=40; by default those of training rows")
    add(
        "--library",
        type=FiniteFloat | None,
        help="total count of each example, for programs with a library size; by default those of training rows",
    )
    add("--length", type=PositiveInt | None, help="steps of new sequences; by default the most of the training data")
    job = Job.start(choices)
    settings, columns, one_hot = job.settings, run.columns(job.config), class_of(job)
    named = inspect.signature(job.program.sample).parameters
    if settings.temperature != 1 and not isinstance(job.program, VAE):
        raise UsageError(f"temperature: expected 1 for a {type(job.program).__name__}, got {settings.temperature}")
    for option in ("library", "length"):
        if settings[option] and option not in named:
            raise UsageError(f"{option}: expected none for a {type(job.program).__name__}, got {settings[option]}")
    length = settings.length or job.config["steps"] if "length" in named else None
    inputs = None if length is None else inputs_of(job, length)
    rows = training_rows(job) if "context" in job.config or "library" in named else None
    context = covariates_of(job) if rows is None or settings.covariates else rows[1]
    if columns and settings.mean:
        raise UsageError("mean: the labels of a table have no mean. Leave it out to sample rows")
    sizes = rows[0].flatten(1).sum(1) if "library" in named else None
    parts = []
    for start, n in job.chunks(settings.num_samples):
        here = torch.arange(start, start + n)
        given: dict[str, Any] = {"y": one_hot[0].expand(n, -1)} if one_hot else {}
        given |= {} if context is None else {"context": [context[here % len(context)]]}
        given |= {} if sizes is None else {"library": settings.library or sizes[here % len(sizes)]}
        given |= {} if length is None else {"length": length}
        given |= {} if inputs is None else {"inputs": inputs[here % len(inputs)]}
        how = {"temperature": settings.temperature, "mean": settings.mean, "seed": settings.seed + start}
        parts.append(tasks.generate(job.program, n, **how, **given))
    x = torch.cat(parts).cpu()
    if length is not None:
        job.target.write(written(job.target.kind, {"x": x}, torch.full((len(x),), length)))
        return 0
    job.target.write(decode(columns, x) if columns else x.numpy())
    return 0


def inputs_of(job: Job, length: int) -> Tensor | None:
    """Return the inputs of so many steps of random training sequences, None for a run without inputs."""
    if not job.config.get("inputs"):
        return None
    known = load(job.config).dataset.train.inputs
    longest = int((~known.isnan()).all(-1).sum(1).max())
    if length > longest:
        raise UsageError(f"length: expected at most {longest}, the steps with inputs in the data, got {length}")
    known = known[~known[:, :length].isnan().flatten(1).any(1), :length]
    return known[torch.randperm(len(known), generator=torch.Generator().manual_seed(job.settings.seed))]


def class_of(job: Job) -> list[Tensor]:
    """Return the chosen class as a one-hot row, or nothing if none was chosen."""
    name, classes = job.settings["class"], [str(c) for c in job.config.get("classes", ())]
    if name is None:
        return []
    if not classes:
        raise UsageError(f"class: expected none, as the run in {job.settings.run} has no classes, got {name}")
    look_up("class", name, dict.fromkeys(classes))
    return [torch.eye(len(classes))[[classes.index(name)]]]


def training_rows(job: Job) -> tuple[Tensor, Tensor | None]:
    """Return random training rows and their covariates, at most as many as there are new examples."""
    source = load(job.config)
    order = torch.randperm(len(source.dataset.train), generator=torch.Generator().manual_seed(job.settings.seed))
    order = order[: job.settings.num_samples]
    return source.dataset.train.batch(order), source.context and source.context.train.x[order]


def covariates_of(job: Job) -> Tensor | None:
    """Return the chosen covariates as one row, None without any."""
    text, known = job.settings.covariates, run.columns(job.config, "context")
    if text is None:
        return None
    if not known:
        raise UsageError(f"covariates: expected none, as the run in {job.settings.run} has none, got {text}")
    names = [column.name for column in known]
    cells = [cell.partition("=")[::2] for cell in cells_of(text)]
    if sorted(name for name, _ in cells) != sorted(names):
        raise UsageError(
            f"covariates: expected one value for each of {', '.join(names)}, such as {names[0]}=..., got {text}"
        )
    return usage(encode_covariates, "--covariates", {n: np.array([v], object) for n, v in cells}, known)[0]
