"""Options and files that the commands share."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ActionYesNo, Namespace
from jsonargparse.typing import PositiveInt
from torch import Tensor

from pyro_vae import data
from pyro_vae._util.atomic_files import write_file
from pyro_vae._util.devices import resolve_device
from pyro_vae._util.progress import progress_bar
from pyro_vae._util.validation import check_unique, nearest
from pyro_vae.cli.choices import Choices, UsageError, look_up, usage
from pyro_vae.config import run
from pyro_vae.config.data import Source, is_file
from pyro_vae.config.load import load
from pyro_vae.config.read_rows import read_rows
from pyro_vae.config.rows import Rows
from pyro_vae.data import files
from pyro_vae.data.binarize import CHOICES as BINARIZATIONS
from pyro_vae.data.readers import READERS
from pyro_vae.data.readers.reader import ending
from pyro_vae.data.sources import LOADERS
from pyro_vae.programs import Program

#: Default parts; the default likelihood depends on the kind of the data.
DEFAULTS = {"posterior": "MeanFieldNormal", "prior": "StandardNormal", "estimator": "ELBO"}
LIKELIHOODS = {"binary": "Bernoulli", "grey": "ContinuousBernoulli", "real": "Normal", "mixed": "Heterogeneous"}
LIKELIHOODS |= {"counts": "NegativeBinomial", "sparse counts": "NegativeBinomial"}
LIKELIHOODS |= dict.fromkeys(("real columns", "sequences"), "Heterogeneous")
#: Images of ink on paper, whose published models have binary pixels.
INK = ("mnist_small", "mnist")
#: What can be read, in words.
FILES = f"a file {', '.join(e for reader in READERS for e in reader.endings)}, or a folder of images"
#: Rows at a time between two updates of the progress bar.
CHUNK = 1000


def add_noise(choices: Choices) -> None:
    """Add the options of every command that computes."""
    choices.option("--seed", type=int, default=0, help="random seed")
    choices.option("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    choices.option("--quiet", action="store_true", help="show no progress bar")


def add_training(choices: Choices, *, batch_size: int) -> None:
    """Add the options of every command that trains a program."""
    add = choices.option
    add("--data", default="mnist_small", help=f"data set: {', '.join(data.names())}; or {FILES}")
    add("--columns", type=str | None, help="types of columns of a table, such as 'age=Count,size=Ordinal(S<M<L)'")
    add("--leave-out", type=str | None, help="columns of a table that are not used, separated by commas")
    add("--keep-empty", action=ActionYesNo, nargs="?", default=False, help="use rows of a table without any value")
    add("--keep-index", action=ActionYesNo, nargs="?", default=False, help="use the column with pandas' row numbers")
    axes = "axes of one image in an array: hw, hwc or chw; detected by default; tc for sequences (steps, channels)"
    add("--layout", type=str | None, help=axes)
    add("--levels", type=PositiveInt | None, help="largest level of images in bytes: 255, or 1; detected by default")
    add("--size", type=PositiveInt | None, help="height and width to which the images of a folder are resized")
    add("--key", type=str | None, help="name of the array in a file with several")
    kinds = ("none", *BINARIZATIONS)
    how = f"how grey levels become binary values; by default dynamic for {' and '.join(INK)}, none for others"
    add("--binarize", choices=kinds, default=None, help=how)
    add("--latent", type=PositiveInt, default=8, help="number of latents")
    add("--batch-size", type=PositiveInt, default=batch_size, help="examples per step")
    add("--run-dir", type=str | None, help="folder for the results; runs/DATA-TIME by default")
    add_noise(choices)


def read_training(choices: Choices) -> Namespace:
    """Return the settings of a command that trains a program."""
    settings = choices.parse()
    check_source("data", settings.data)
    binarize = settings.binarize or ("dynamic" if settings.data in INK else "none")
    settings.binarize = None if binarize == "none" else binarize
    settings.types = usage(types_of, settings.pop("columns"))
    settings.leave_out = names_of("leave-out", settings.leave_out)
    return settings


def check_source(option: str, name: str) -> None:
    """Raise unless a name is that of a data set, or of a file or folder that can be read."""
    if is_file(name):
        return
    try:
        look_up(option, name, LOADERS)
    except UsageError as error:
        kind = ending(name)
        near = nearest(kind, [e for reader in READERS for e in reader.endings]) if kind else ""
        raise UsageError(f"{error}{near}. Or name {FILES}") from error


def types_of(text: str | None) -> dict[str, str] | None:
    """Return the types of columns in a text such as ``age=Count,size=Ordinal(S<M<L)``, None if there are none.

    Example:
        >>> types_of("age=Count,size=Ordinal(S<M<L)")
        {'age': 'Count', 'size': 'Ordinal(S<M<L)'}
    """
    found = [re.fullmatch(r"(.+)=(\w+(?:\(.*\))?)", cell) for cell in cells_of(text)]
    if not all(found):
        raise ValueError(f"columns: expected NAME=TYPE, separated by commas, got {text!r}")
    check_unique("columns", [match[1] for match in found])
    return {match[1]: match[2] for match in found} or None


def names_of(option: str, text: str | None) -> list[str] | None:
    """Return the names in a list between commas, None if there are none; or raise if one is empty or occurs twice."""
    names = cells_of(text)
    if names and not all(names):
        raise UsageError(f"{option}: expected names, separated by commas, got {text!r}")
    usage(check_unique, option, names)
    return names or None


def cells_of(text: str | None) -> list[str]:
    """Return the texts between commas; a text with a comma is in quotation marks."""
    return [cell.strip() for cell in next(csv.reader([text or ""], skipinitialspace=True))]


def folder_of(settings: Namespace, name: str) -> Path:
    """Return the folder of a new run; without ``--run-dir`` its name has the time."""
    return Path(settings.run_dir or Path("runs") / f"{Path(name).name}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}")


def for_run(command: str, argv: list[str], arguments: str = "RUN ") -> Choices:
    """Return the command line of a command that uses a run."""
    choices = Choices(command, argv, arguments)
    choices.option("run", metavar="RUN", help="folder of a run of `pyro-vae train`")
    return choices


@dataclass
class Job:
    """A command that applies the program of a run to data and writes the result to a file."""

    settings: Namespace
    config: dict[str, Any]
    program: Program
    target: Target

    @staticmethod
    def options(command: str, argv: list[str], *, takes_input: bool = True) -> Choices:
        """Return the command line of such a command."""
        choices = for_run(command, argv, "RUN INPUT " if takes_input else "RUN ")
        add = choices.option
        if takes_input:
            add("input", metavar="INPUT", help=f"{FILES}; or a data set, whose test data are used")
        add("--output", type=str | None, help="new file .npy, .npz or .csv; by default a .csv goes to the terminal")
        add_noise(choices)
        return choices

    @classmethod
    def start(cls, choices: Choices, endings: Sequence[str] = files.ENDINGS) -> Job:
        """Parse the command line, and check files and the run before any work is done."""
        settings = choices.parse()
        target = Target(settings.output, endings)
        config = run.read(settings.run)
        return cls(settings, config, load(settings.run).to(resolve_device(settings.device)), target)

    @property
    def noise(self) -> dict[str, Any]:
        """Seed and progress, as tasks take them."""
        return {"seed": self.settings.seed, "progress": not self.settings.quiet}

    def rows(self, *, each: bool = True) -> Rows:
        """Read the data; ``each`` as in :func:`read_rows`, whose notes go to the standard error."""
        check_source("INPUT", self.settings.input)
        rows = read_rows(self.settings.input, self.config, self.program, each=each)
        for note in rows.notes:
            print(note, file=sys.stderr)
        return rows

    def chunks(self, n: int) -> Any:
        """Yield first row and number of rows of each chunk of ``n`` rows, with a progress bar."""
        starts = progress_bar(range(0, n, CHUNK), desc="rows", unit="chunk", progress=not self.settings.quiet)
        return ((start, min(CHUNK, n - start)) for start in starts)


class Target:
    """The destination of a result: a new file whose name has one of some endings, or (None) the terminal as .csv."""

    def __init__(self, path: str | None, endings: Sequence[str]) -> None:
        self.path = None if path is None else Path(path)
        self.kind = ".csv" if path is None else files.ending(path, endings)
        if self.path is not None and self.path.exists():
            raise ValueError(f"output: expected a new file, but {path} exists. Name another file, or remove this one")

    def write(self, values: files.Values) -> None:
        """Write the result, completely or not at all."""
        content = files.encode(self.kind, values)
        if self.path is None:
            sys.stdout.write(content.decode())
            return
        self.write_bytes(content)
        rows = len(next(iter(values.values()))) if isinstance(values, dict) else len(values)
        print(f"{rows:,} rows are in {self.path}")

    def write_bytes(self, content: bytes) -> None:
        """Write the file; create its folder if necessary."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.path, content)


def evenly_spaced(n: int, most: int) -> Tensor:
    """Return at most ``most`` evenly spaced numbers of ``n`` rows, which may be sorted by class."""
    most = min(most, n)
    return torch.arange(most) * n // most


def named_options(error: ValueError, source: Source) -> ValueError:
    """Return an error about data with its place in the file, and with the option in place of the Python argument."""
    return ValueError(source.located(str(error)).replace("pass missing=True to the program", "pass --missing"))


def save(figure: Any, path: Path) -> None:
    """Save a figure; create its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def write_page(text: str, path: Path) -> None:
    """Write an HTML page and print where it is; create its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB. Open it in a browser")
