"""The command ``pyro-vae explore``: a page to walk through the latent space of a finished run."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from torch import Tensor

from pyro_vae import pages, plots
from pyro_vae._util.devices import resolve_device
from pyro_vae.cli import data as cli_data
from pyro_vae.cli.choices import Choices
from pyro_vae.cli.shared import write_page
from pyro_vae.config import run
from pyro_vae.data import Split, files
from pyro_vae.programs import VAE

__all__ = ["explore"]

#: Bytes of data and covariances in a page, at most; base64 adds a third.
ROOM = 1_500_000


def explore(argv: list[str]) -> int:
    """Write a page to walk through the latent space of a run: it opens from the disk, in any browser."""
    settings = parse(argv)
    config, device = run.read(settings.run), resolve_device(settings.device)
    vae = run.load(settings.run).to(device)
    if not isinstance(vae, VAE):
        raise ValueError(
            f"run: {settings.run} is a {type(vae).__name__}; a page is drawn of a VAE without classes or context"
        )
    split = read_data(settings.data) if settings.data else cli_data.load(config).dataset.test
    rows = some_of(split, config["latent"], settings)
    chosen = split[rows]
    source = settings.data or f"the test data of {config['data']}"
    parts = ", ".join(config[axis]["name"] for axis in ("prior", "likelihood", "posterior"))
    text = pages.explorer(
        vae,
        chosen.x,
        chosen.y,
        rows=rows,
        title=f"Latent space of {Path(settings.run).resolve().name}",
        about=f"{parts}; trained by {config['estimator']['name']}. {len(rows):,} of {source}.",
        seed=settings.seed,
        num_particles=settings.particles,
    )
    write_page(text, Path(settings.output or Path(settings.run) / "explore.html"))
    return 0


def parse(argv: list[str]) -> Namespace:
    """Read the arguments."""
    choices = Choices("explore", argv)
    choices.parser.usage = "%(prog)s RUN [options]"
    add = choices.parser.add_argument
    add("run", metavar="RUN", help="folder of a run of `pyro-vae train`")
    add("--data", type=str | None, help="a file .npy or .npz of data in place of the test data of the run")
    add("--points", type=PositiveInt, default=300, help="data on the page, fewer where they are large")
    add("--particles", type=PositiveInt, default=1000, help="draws for the log-likelihood of each datum")
    add("--output", type=str | None, help="where to write the page; RUN/explore.html by default")
    add("--seed", type=int, default=0, help="of the choice of data and of the draws")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    return choices.parse()


def read_data(name: str) -> Split:
    """Read rows of data from a file of arrays."""
    array = cli_data.array_of(files.read(name))
    if array is None:
        raise ValueError(f"data: expected an array whose rows are data in {name}, got the columns of a table")
    return Split(cli_data.numbers(name, array))


def some_of(split: Split, latent: int, settings: Namespace) -> Tensor:
    """Choose data, in their order, as many as are asked for and have room."""
    shape = split.x.shape[1:]
    each = math.prod(shape) * (1 if plots.is_image(shape) else 4) + 4 * latent**2
    n = min(settings.points, len(split), max(1, ROOM // each))
    drawn = torch.randperm(len(split), generator=torch.Generator().manual_seed(settings.seed))
    return drawn[:n].sort().values
