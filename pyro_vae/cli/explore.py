"""The command ``pyro-vae explore``."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from torch import Tensor

from pyro_vae import pages, plots, tasks
from pyro_vae._util.devices import resolve_device
from pyro_vae.cli.shared import for_run, write_page
from pyro_vae.config import data as run_data
from pyro_vae.config import run
from pyro_vae.config.load import load
from pyro_vae.config.read_rows import read_rows
from pyro_vae.data import Split
from pyro_vae.programs import VAE

#: Most bytes of data and covariances in a page; base64 adds a third.
MAX_BYTES = 1_500_000


def explore(argv: list[str]) -> int:
    """Write an HTML page to explore the latent space of a run; it opens from disk in any browser."""
    choices = for_run("explore", argv)
    add = choices.option
    add("--data", type=str | None, help="a file of data instead of the test data of the run")
    add("--num-points", type=PositiveInt, default=300, help="most examples on the page; fewer if they are large")
    add("--num-particles", type=PositiveInt, default=1000, help="samples per example for the log-likelihood")
    add("--output", type=str | None, help="path of the page; RUN/explore.html by default")
    add("--seed", type=int, default=0, help="random seed")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    settings = choices.parse()
    config, device = run.read(settings.run), resolve_device(settings.device)
    vae = load(settings.run).to(device)
    if not isinstance(vae, VAE):
        raise ValueError(
            f"run: expected a VAE without classes in {settings.run}, got a {type(vae).__name__}. Use `pyro-vae embed` "
            "for its latents, and `pyro-vae sample` for new data"
        )
    split = Split(read_rows(settings.data, config, vae).x) if settings.data else run_data.load(config).dataset.test
    split = Split(split.batch().float(), split.y)
    rows = choose(split, config["latent"], settings)
    chosen, note = split[rows], ""
    if torch.isnan(chosen.x).any():  # the page needs a value of every entry
        note = f" Their {int(torch.isnan(chosen.x).sum()):,} missing entries are imputed by conditional means."
        found = tasks.impute(
            vae, chosen.x, num_samples=0, num_particles=settings.num_particles, seed=settings.seed, progress=False
        )
        chosen = Split(found.x, chosen.y)
    source = settings.data or f"the test data of {config['data']}"
    parts = ", ".join(config[axis]["name"] for axis in ("prior", "likelihood", "posterior"))
    text = pages.explorer(
        vae,
        chosen.x,
        chosen.y,
        rows=rows,
        title=f"Latent space of {Path(settings.run).resolve().name}",
        about=f"{parts}; trained with {config['estimator']['name']}. {len(rows):,} examples of {source}.{note}",
        seed=settings.seed,
        num_particles=settings.num_particles,
    )
    write_page(text, Path(settings.output or Path(settings.run) / "explore.html"))
    return 0


def choose(split: Split, latent: int, settings: Namespace) -> Tensor:
    """Choose random examples, in their order, as many as were requested and fit into a page."""
    shape = split.x.shape[1:]
    size = math.prod(shape) * (1 if plots.is_image(shape) else 4) + 4 * latent**2
    n = min(settings.num_points, len(split), max(1, MAX_BYTES // size))
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(settings.seed))
    return order[:n].sort().values
