"""What the subcommands of ``pyro-vae`` share."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from pyro_vae import data
from pyro_vae._util.atomic_files import write_file
from pyro_vae.cli.choices import Choices, look_up
from pyro_vae.cli.data import is_file
from pyro_vae.data.binarize import CHOICES as BINARIZATIONS
from pyro_vae.data.sources import LOADERS

__all__ = ["DEFAULTS", "LIKELIHOODS", "add_common", "folder_of", "read", "save", "write_page"]

#: Chosen where nothing is said; the likelihood goes by the kind of the data.
DEFAULTS = {"posterior": "MeanFieldNormal", "prior": "StandardNormal", "estimator": "ELBO"}
LIKELIHOODS = {
    "binary": "Bernoulli",
    "grey": "ContinuousBernoulli",
    "real": "Normal",
    "mixed": "Heterogeneous",
}


def add_common(choices: Choices, *, batch_size: int) -> None:
    """Add the options of every subcommand that builds a program."""
    add = choices.parser.add_argument
    add("--data", default="digits", help=f"data set: {', '.join(data.names())}; or a file .npy, .npz or .csv")
    kinds = ("none", *BINARIZATIONS)
    add("--binarize", choices=kinds, default="none", help="how grey levels become bits")
    add("--latent", type=PositiveInt, default=8, help="number of latents")
    add("--batch-size", type=PositiveInt, default=batch_size, help="data a step")
    add("--seed", type=int, default=0, help="of weights, order of the data and noise")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--run-dir", type=str | None, help="folder for the results; runs/DATA-TIME by default")
    add("--quiet", action="store_true", help="show no progress bar")


def read(choices: Choices) -> Namespace:
    """Return the settings, names of data and binarization looked up."""
    settings = choices.parse()
    if not is_file(settings.data):
        look_up("data", settings.data, LOADERS)
    settings.binarize = None if settings.binarize == "none" else settings.binarize
    return settings


def folder_of(settings: Namespace, name: str) -> Path:
    """Return the folder of the run, by default one of the name and the time."""
    return Path(settings.run_dir or Path("runs") / f"{name}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}")


def save(figure: Any, path: Path) -> None:
    """Write a figure, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def write_page(text: str, path: Path) -> None:
    """Write a page whole, its folder too, and say where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser")
