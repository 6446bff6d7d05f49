"""The command ``pyro-vae evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from pyro_vae import evaluation
from pyro_vae._util.devices import resolve_device
from pyro_vae.cli.shared import add_noise, evenly_spaced, for_run, save
from pyro_vae.config import data as run_data
from pyro_vae.config import run
from pyro_vae.config.load import load
from pyro_vae.evaluation.result import Result


def evaluate(argv: list[str]) -> int:
    """Evaluate a run on its test data: log-likelihood, latents and calibration, optionally gaps and bounds."""
    choices = for_run("evaluate", argv)
    add = choices.option
    add("--num-particles", type=PositiveInt, default=1000, help="samples per example for the log-likelihood")
    add("--gaps", type=NonNegativeInt, default=0, help="number of test examples for the inference gaps")
    add("--bounds", type=NonNegativeInt, default=0, help="number of test examples for the bounds by annealing")
    add("--num-steps", type=PositiveInt, default=500, help="steps of the annealing")
    add_noise(choices)
    settings = choices.parse()
    config, device = run.read(settings.run), resolve_device(settings.device)
    vae = load(settings.run).to(device)
    source, seed = run_data.load(config), settings.seed
    x, n = source.split("test"), len(source.dataset.test)
    shared = {"seed": seed, "progress": not settings.quiet}
    steps = {"num_steps": settings.num_steps}
    gaps, bounds = (source.split("test", evenly_spaced(n, most)) for most in (settings.gaps, settings.bounds))
    works: dict[str, Callable[[], Result]] = {
        "log_likelihood": lambda: evaluation.log_likelihood(vae, x, num_particles=settings.num_particles, **shared),
        "latents": lambda: evaluation.latents(vae, x, **shared),
    }
    # it simulates data, which not every program can
    where_possible = {"calibration": lambda: evaluation.calibration(vae, x, **shared)}
    if settings.gaps:
        works["inference_gaps"] = lambda: evaluation.inference_gaps(vae, gaps, **shared)
    if settings.bounds:
        works["marginal_bounds"] = lambda: evaluation.marginal_bounds(vae, bounds, **steps, **shared)
    folder = Path(settings.run) / "evaluation"
    for name, work in {**works, **where_possible}.items():
        try:
            found = work()
        except (TypeError, ValueError) as error:
            if name in works:
                raise
            print(f"{name}\n\nnot for this run: {error}\n")
            continue
        print(f"{name}\n\n{found}\n")
        save(found.plot(), folder / f"{name}.png")
        found.to_csv(folder / f"{name}.csv")
        found.to_json(folder / f"{name}.json")
    print(f"tables and figures are in {folder}")
    return 0
