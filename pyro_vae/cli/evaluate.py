"""The command ``pyro-vae evaluate``: what a finished run is worth, on its test data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from pyro_vae import evaluation
from pyro_vae._util.devices import resolve_device
from pyro_vae.cli import data as cli_data
from pyro_vae.cli.choices import Choices
from pyro_vae.cli.shared import save
from pyro_vae.config import run
from pyro_vae.evaluation.result import Result

__all__ = ["evaluate"]


def evaluate(argv: list[str]) -> int:
    """Evaluate a run on its test data: log-likelihood, latents, calibration; gaps and annealed bounds where asked."""
    settings = parse(argv)
    config, device = run.read(settings.run), resolve_device(settings.device)
    vae = run.load(settings.run).to(device)
    test = cli_data.load(config).dataset.test
    x, shared = test.x, {"seed": settings.seed, "progress": not settings.quiet}
    # evenly spaced, as data may be sorted by class
    some = {n: x[:: max(1, len(x) // n)][:n] for n in (settings.gaps, settings.bounds) if n}
    works: dict[str, Callable[[], Result]] = {
        "log_likelihood": lambda: evaluation.log_likelihood(vae, x, num_particles=settings.particles, **shared),
        "latents": lambda: evaluation.latents(vae, x, **shared),
        "calibration": lambda: evaluation.calibration(vae, x, **shared),
    }
    if settings.gaps:
        works["inference_gaps"] = lambda: evaluation.inference_gaps(vae, some[settings.gaps], **shared)
    if settings.bounds:
        works["marginal_bounds"] = lambda: evaluation.marginal_bounds(
            vae, some[settings.bounds], num_steps=settings.temperatures, **shared
        )
    folder = Path(settings.run) / "evaluation"
    for name, work in works.items():
        found = work()
        print(f"{name}\n\n{found}\n")
        save(found.plot(), folder / f"{name}.png")
        found.to_csv(folder / f"{name}.csv")
        found.to_json(folder / f"{name}.json")
    print(f"tables and figures are in {folder}")
    return 0


def parse(argv: list[str]) -> Namespace:
    """Read the arguments."""
    choices = Choices("evaluate", argv)
    choices.parser.usage = "%(prog)s RUN [options]"
    add = choices.parser.add_argument
    add("run", metavar="RUN", help="folder of a run of `pyro-vae train`")
    add("--particles", type=PositiveInt, default=1000, help="draws for the log-likelihood")
    add("--gaps", type=NonNegativeInt, default=0, help="test data whose posterior is optimised, one by one")
    add("--bounds", type=NonNegativeInt, default=0, help="test data whose log-likelihood is bounded by annealing")
    add("--temperatures", type=PositiveInt, default=500, help="of the annealing")
    add("--seed", type=int, default=0, help="of the draws")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--quiet", action="store_true", help="show no progress bar")
    return choices.parse()
