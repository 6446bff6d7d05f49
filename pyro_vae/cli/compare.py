"""The command ``pyro-vae compare``."""

from __future__ import annotations

import ast
import inspect
import re
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from pyro_vae import evaluation, pages
from pyro_vae._util.devices import resolve_device
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_unique, nearest
from pyro_vae.cli.choices import Choices, FiniteFloat, first_line, usage
from pyro_vae.cli.shared import (
    DEFAULTS,
    LIKELIHOODS,
    add_training,
    evenly_spaced,
    folder_of,
    named_options,
    read_training,
    save,
    write_page,
)
from pyro_vae.config import data as run_data
from pyro_vae.config import parts, run
from pyro_vae.config.complete import complete
from pyro_vae.config.program import DEFAULTS as DEFAULTS_OF_PROGRAMS
from pyro_vae.config.program import build_program
from pyro_vae.evaluation import Particles, Seconds, Steps
from pyro_vae.training import fit

#: The default estimators.
ESTIMATORS = "ELBO, StickingTheLanding, IWAE, DReG, MIWAE(M=2, K=4), Renyi, pyro.Trace_ELBO, pyro.RenyiELBO(alpha=0)"
#: Budgets by the names of their options, and the default number of steps.
BUDGETS = {"num_steps": Steps, "total_particles": Particles, "seconds": Seconds}
NUM_STEPS = 200
#: Particles of the validation log-likelihoods during training.
VALID_PARTICLES = 50
#: Options of Pyro's estimators that suit the programs of the command.
VECTORIZED = {"vectorize_particles": True, "max_plate_nesting": 1}
AXES = ("posterior", "likelihood", "prior")


def compare(argv: list[str]) -> int:
    """Compare estimators: bounds, gradients and costs, and which one trains best on an equal budget."""
    settings, _, _ = parse(argv, LIKELIHOODS["grey"])
    folder = folder_of(settings, f"compare-{Path(settings.data).name}")
    run.check_unused(folder)
    device = resolve_device(settings.device)
    source = run_data.load(vars(settings))
    settings, config, estimators = parse(argv, LIKELIHOODS[source.kind])
    program = {"name": "VAE", "options": {"missing": settings.missing or source.holes}}
    if source.kind == "sequences":
        program = {
            "name": "SequenceVAE",
            "options": {**program["options"], "summary": DEFAULTS_OF_PROGRAMS["summary"]},
        }
    config = run.plain(complete({**config, "program": program}, source))
    first, vae = build_program(config).to(device), build_program(config).to(device)
    optimizer = partial(torch.optim.Adam, lr=settings.learning_rate)
    x = batch_of(source, settings.batch_size, settings.seed)
    try:
        vae.check(*(column.to(device) for column in x))
    except ValueError as error:
        raise named_options(error, source) from error
    shared = {"seed": settings.seed, "progress": not settings.quiet}
    size = {"batch_size": settings.batch_size, "optimizer": optimizer}
    if settings.epochs:
        fit(vae, source.split("train"), epochs=settings.epochs, **size, **shared)
    table = evaluation.compare_estimators(vae, x, estimators, num_samples=settings.num_samples, **shared)
    print(f"{source}; gradients after {settings.epochs} epochs with the ELBO\n\n{table}\n")
    run.write(folder, config)
    export(table, "comparison", folder)
    curves = evaluation.train_under(
        first,
        source.split("train"),
        estimators,
        budget=settings.budget,
        valid=source.split("valid"),
        num_particles=VALID_PARTICLES,
        **size,
        **shared,
    )
    print(curves)
    export(curves, "training", folder)
    title = f"Estimators on {Path(settings.data).name}"
    write_page(pages.comparison(title, on_one_batch=table, in_training=curves), folder / "comparison.html")
    print(f"\ntables and figures are in {folder}")
    return 0


def export(found: Any, name: str, folder: Path) -> None:
    """Write a table and its figure into the run folder."""
    found.to_csv(folder / f"{name}.csv")
    found.to_json(folder / f"{name}.json")
    found.to_latex(folder / f"{name}.tex")
    save(found.plot(), folder / "figures" / f"{name}.png")


def parse(argv: list[str], likelihood: str) -> tuple[Namespace, dict[str, Any], dict[str, pyro.infer.ELBO]]:
    """Parse the arguments; return settings, the entries of the configuration, and the estimators."""
    choices = Choices("compare", argv)
    add_training(choices, batch_size=32)
    add, shelves = choices.option, parts.shelves()
    shelf = ", ".join(shelves["estimator"])
    among = f"names, or names with options as in Renyi(alpha=0.3), of {shelf}; pyro.NAME for those of pyro.infer"
    add("--estimators", default=ESTIMATORS, help=among)
    add("--num-particles", type=PositiveInt, default=8, help="particles of each estimator without this option")
    add("--num-samples", type=PositiveInt, default=60, help="gradients sampled from each estimator")
    add("--missing", action="store_true", help="entries of the data may be missing (NaN, empty cells)")
    add("--epochs", type=NonNegativeInt, default=10, help="epochs with the ELBO before gradients are sampled")
    add("--learning-rate", type=FiniteFloat, default=1e-3, help="learning rate of Adam")
    for name, budget in BUDGETS.items():
        help = f"budget of each training: {first_line(budget)}"
        add(f"--{name.replace('_', '-')}", type=PositiveInt | None, help=help)
    for axis in AXES:
        choices.add(axis, shelves[axis], {**DEFAULTS, "likelihood": likelihood}[axis])
    settings = read_training(choices)
    settings.budget = usage(budget_of, settings)
    estimators = usage(estimators_of, settings.estimators, settings.num_particles)
    config = {k: v for k, v in vars(settings).items() if k not in {"run_dir", "quiet", "budget", "missing", *AXES}}
    return settings, {**config, **{axis: choices.describe(axis, settings) for axis in AXES}}, estimators


def budget_of(settings: Namespace) -> Steps | Particles | Seconds:
    """Return the chosen budget."""
    given = {name: settings[name] for name in BUDGETS if settings[name] is not None}
    if len(given) > 1:
        raise ValueError(f"{', '.join(given).replace('_', '-')}: expected one budget, got {len(given)}")
    return next((BUDGETS[name](amount) for name, amount in given.items()), Steps(NUM_STEPS))


def estimators_of(text: str, num_particles: int) -> dict[str, pyro.infer.ELBO]:
    """Build the estimators of a list such as ``"ELBO, Renyi(alpha=0.3), pyro.Trace_ELBO"``.

    Example:
        >>> found = estimators_of("IWAE, Renyi(alpha=0.3), pyro.Trace_ELBO", 8)
        >>> [(name, estimator.num_particles) for name, estimator in found.items()]
        [('IWAE', 8), ('Renyi(alpha=0.3)', 8), ('pyro.Trace_ELBO', 8)]
    """
    try:
        entries = ast.parse(f"[{text}]", mode="eval").body.elts
        parsed = [(ast.unparse(entry), *name_and_options(entry)) for entry in entries]
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"estimators: expected NAME or NAME(option=value), separated by commas, got {text!r}"
        ) from error
    check_unique("estimators", [name for name, *_ in parsed])
    shelf = parts.shelves()["estimator"] | pyros()
    found = {}
    for name, cls, options in parsed:
        try:
            found[name] = build(parts.resolve("estimators", cls, shelf), options, num_particles)
        except TypeError as error:
            known = inspect.signature(shelf[cls]).parameters
            unknown = re.search("unexpected keyword argument '(.*)'", str(error))
            hint = nearest(unknown[1], known) if unknown else ""
            raise ValueError(f"estimators: cannot build {name}: {error}{hint}") from error
    return found


def name_and_options(entry: ast.expr) -> tuple[str, dict[str, Any]]:
    """Return the name and the plain options of ``NAME`` or ``NAME(option=value)``."""
    if not isinstance(entry, ast.Call):
        return ast.unparse(entry), {}
    if entry.args or not all(keyword.arg for keyword in entry.keywords):
        raise ValueError("options need a name")
    return ast.unparse(entry.func), {keyword.arg: ast.literal_eval(keyword.value) for keyword in entry.keywords}


def build(cls: type[pyro.infer.ELBO], options: dict[str, Any], num_particles: int) -> pyro.infer.ELBO:
    """Build an estimator, with this default number of particles if it has one."""
    presets = {"num_particles": num_particles}
    if cls.__module__.startswith("pyro."):
        known = inspect.signature(cls).parameters
        presets |= {name: value for name, value in VECTORIZED.items() if name in known}
    # MIWAE and similar estimators have the numbers M and K instead
    return cls(**options) if "M" in inspect.signature(cls).parameters else cls(**{**presets, **options})


def pyros() -> dict[str, type[pyro.infer.ELBO]]:
    """Return Pyro's estimators by their names on the command line, without the Jit ones (torch.jit is deprecated)."""
    exported = {name: getattr(pyro.infer, name) for name in pyro.infer.__all__}
    return {
        f"pyro.{name}": cls
        for name, cls in exported.items()
        if inspect.isclass(cls) and issubclass(cls, pyro.infer.ELBO) and not name.startswith("Jit")
    }


def batch_of(source: run_data.Source, n: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Return evenly spaced test examples."""
    with fork_rng(seed=seed):
        return source.batch("test", evenly_spaced(len(source.dataset.test), n))
