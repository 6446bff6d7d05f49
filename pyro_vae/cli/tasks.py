"""The commands that use a finished run: ``pyro-vae sample|reconstruct|impute|score|classify|embed``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from pyro_vae import tasks
from pyro_vae._util.devices import resolve_device
from pyro_vae._util.progress import progress_bar
from pyro_vae.cli.choices import Choices, UsageError, look_up
from pyro_vae.cli.rows import Rows, Target, decoded, read_rows
from pyro_vae.config import run
from pyro_vae.data import files
from pyro_vae.programs import VAE, Program

__all__ = ["TASKS"]

#: Rows at a time, between which the bar moves.
CHUNK = 1000


@dataclass
class Job:
    """What a command works on.

    Attributes:
        settings: of the command line
        config: of the run
        program: of the run, on the device
        target: where the result goes
    """

    settings: Namespace
    config: dict[str, Any]
    program: Program
    target: Target

    @property
    def noise(self) -> dict[str, Any]:
        """Seed and progress, as tasks take them."""
        return {"seed": self.settings.seed, "progress": not self.settings.quiet}

    def rows(self) -> Rows:
        """Read the data of the command."""
        return read_rows(self.settings.input, self.config, self.program)

    def chunks(self, n: int) -> Any:
        """Return first row and number of rows of each chunk of ``n``, under a progress bar."""
        starts = progress_bar(range(0, n, CHUNK), desc="rows", unit="chunk", progress=not self.settings.quiet)
        return ((start, min(CHUNK, n - start)) for start in starts)


def begin(choices: Choices) -> Job:
    """Read the arguments, and find what can go wrong before any work."""
    settings = choices.parse()
    target = Target(settings.output)
    config = run.read(settings.run)
    return Job(settings, config, run.load(settings.run).to(resolve_device(settings.device)), target)


def arguments(command: str, argv: list[str], *, takes_input: bool = True) -> Choices:
    """Return a command line with what all of these commands take."""
    choices = Choices(command, argv)
    choices.parser.usage = f"%(prog)s RUN {'INPUT ' if takes_input else ''}[options]"
    add = choices.parser.add_argument
    add("run", metavar="RUN", help="folder of a run of `pyro-vae train`")
    if takes_input:
        add("input", metavar="INPUT", help="file .npy, .npz or .csv, or a data set, whose test data are taken")
    add("--output", type=str | None, help="new file .npy, .npz or .csv; by default .csv goes to the terminal")
    add("--seed", type=int, default=0, help="of the draws")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--quiet", action="store_true", help="show no progress bar")
    return choices


def sample(argv: list[str]) -> int:
    """Draw new data from a run."""
    choices = arguments("sample", argv, takes_input=False)
    add = choices.parser.add_argument
    add("--n", type=PositiveInt, default=16, help="how many")
    add("--mean", action="store_true", help="means of p(x given z) in place of draws, not for tables")
    add("--temperature", type=PositiveFloat, default=1.0, help="below 1 data are more typical and less varied")
    add("--class", type=str | None, help="of the new data, for a run with classes")
    job = begin(choices)
    settings, columns, one_hot = job.settings, run.columns(job.config), class_of(job)
    if columns and settings.mean:
        raise UsageError("mean: the labels of a table have no mean; leave it out to draw rows")
    if settings.temperature != 1 and not isinstance(job.program, VAE):
        raise UsageError(f"temperature: expected 1 for a {type(job.program).__name__}, got {settings.temperature}")
    parts = [
        tasks.generate(
            job.program,
            n,
            context=[c.expand(n, -1) for c in one_hot],
            temperature=settings.temperature,
            mean=settings.mean,
            seed=settings.seed + start,
        )
        for start, n in job.chunks(settings.n)
    ]
    x = torch.cat(parts).cpu()
    job.target.write(decoded(columns, x) if columns else x.numpy())
    return 0


def class_of(job: Job) -> list[Tensor]:
    """Return the class that was asked for as a one-hot row, none if none was."""
    name, classes = job.settings["class"], [str(c) for c in job.config.get("classes", ())]
    if name is None:
        return []
    if not classes:
        raise UsageError(f"class: the run in {job.settings.run} has no classes, got {name}")
    look_up("class", name, dict.fromkeys(classes))
    return [torch.eye(len(classes))[[classes.index(name)]]]


def reconstruct(argv: list[str]) -> int:
    """Show data as they look to their own latents: E[x given z] at a draw of z given x."""
    job = begin(arguments("reconstruct", argv))
    rows = job.rows()
    job.target.write(rows.like(tasks.reconstruct(job.program, rows.x, **job.noise)))
    return 0


def impute(argv: list[str]) -> int:
    """Fill missing entries (NaN, empty cells) given the observed ones."""
    choices = arguments("impute", argv)
    add = choices.parser.add_argument
    add("--draws", type=NonNegativeInt, default=0, help="so many draws of each hole in place of its mean")
    add("--particles", type=PositiveInt, default=1000, help="draws of the latents of each datum")
    job = begin(choices)
    rows, draws = job.rows(), job.settings.draws
    found = tasks.impute(job.program, rows.x, num_particles=job.settings.particles, num_samples=draws, **job.noise)
    if not draws:
        job.target.write(rows.filled(found.x))
    elif rows.cells is None and job.target.kind != ".csv":
        job.target.write(found.samples.numpy())
    else:
        job.target.write(stacked([rows.filled(x) for x in found.samples]))
    return 0


def stacked(tables: list[Any]) -> dict[str, np.ndarray]:
    """Return imputed tables below each other, the number of each before its rows."""
    tables = [t if isinstance(t, dict) else files.flat(t) for t in tables]
    number = np.repeat(np.arange(len(tables)), len(next(iter(tables[0].values()))))
    return {"draw": number, **{name: np.concatenate([t[name] for t in tables]) for name in tables[0]}}


def score(argv: list[str]) -> int:
    """Tell how unusual each datum is, in nats: higher is more unusual."""
    choices = arguments("score", argv)
    shelf = {name: cls for name, cls in run.shelf(tasks, tasks.Score).items() if not run.required(cls)}
    choices.add("score", shelf, "ImportanceWeighted")
    job = begin(choices)
    how = choices.chosen["score"](**vars(job.settings.score))
    x = job.rows().x
    parts = [how(job.program, x[start : start + n], seed=job.settings.seed + start) for start, n in job.chunks(len(x))]
    values = torch.cat(parts).numpy()
    job.target.write(values if job.target.kind == ".npy" else {"score": values})
    return 0


def classify(argv: list[str]) -> int:
    """Tell the probability of each class, by a run with classes."""
    job = begin(arguments("classify", argv))
    if not hasattr(job.program, "classify"):
        raise ValueError(
            f"run: {job.settings.run} is a {type(job.program).__name__}, which has no classes: train one by "
            "`pyro-vae train --program SemiSupervised`"
        )
    x = job.rows().x.to(resolve_device(job.settings.device))
    values = torch.cat([job.program.classify(x[start : start + n]).cpu() for start, n in job.chunks(len(x))]).numpy()
    names = [str(c) for c in job.config["classes"]]
    job.target.write(values if job.target.kind == ".npy" else dict(zip(names, values.T, strict=True)))
    return 0


def embed(argv: list[str]) -> int:
    """Tell mean and standard deviation of each latent given each datum."""
    choices = arguments("embed", argv)
    choices.parser.add_argument(
        "--draws", type=PositiveInt, default=64, help="at least 2, where there is no closed form"
    )
    job = begin(choices)
    found = tasks.embed(job.program, job.rows().x, num_samples=job.settings.draws, **job.noise)
    if job.target.kind == ".npy":
        job.target.write(torch.stack([found.mean, found.std], 1).numpy())
    else:
        names = [f"{name}.{what}" for what in ("mean", "sd") for name in found.names]
        job.target.write(dict(zip(names, torch.cat([found.mean, found.std], 1).T.numpy(), strict=True)))
    return 0


TASKS = {command.__name__: command for command in (sample, reconstruct, impute, score, classify, embed)}
