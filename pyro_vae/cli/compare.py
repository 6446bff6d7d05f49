"""The command ``pyro-vae compare``: the estimator laboratory on one data set."""

from __future__ import annotations

import ast
import inspect
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from pyro_vae import data, evaluation
from pyro_vae._util.devices import resolve_device
from pyro_vae._util.random_state import fork_rng
from pyro_vae.cli import data as cli_data
from pyro_vae.cli.choices import Choices, first_line, usage
from pyro_vae.cli.shared import DEFAULTS, LIKELIHOODS, add_common, folder_of, read, save
from pyro_vae.config import run
from pyro_vae.evaluation.laboratory.train_under import Budget, Particles, Seconds, Steps
from pyro_vae.training import fit

__all__ = ["compare"]

#: Compared where nothing is said.
ESTIMATORS = "ELBO, StickingTheLanding, IWAE, DReG, MIWAE(M=2, K=4), Renyi, pyro.Trace_ELBO, pyro.RenyiELBO(alpha=0)"
#: By the names of their options; what each training gets where nothing is said.
BUDGETS = {"steps": Steps, "total_particles": Particles, "seconds": Seconds}
STEPS = 200
#: Particles of the held-out log-likelihoods in training.
HELD_OUT = 50
#: Options of Pyro's estimators that suit the programs of the command.
VECTORIZED = {"vectorize_particles": True, "max_plate_nesting": 1}


def compare(argv: list[str]) -> int:
    """Compare estimators: their bounds, gradients and costs, and what trains best on an equal budget."""
    settings, _, _ = parse(argv, LIKELIHOODS["grey"])
    folder = folder_of(settings, f"compare-{settings.data}")
    run.refuse_used(folder)
    device = resolve_device(settings.device)
    source = cli_data.load(vars(settings))
    settings, config, estimators = parse(argv, LIKELIHOODS[source.kind])
    config, dataset = run.plain({**config, "program": run.PROGRAM, **source.shaped}), source.dataset
    first, vae = run.program(config).to(device), run.program(config).to(device)
    optimizer = partial(torch.optim.Adam, lr=settings.learning_rate)
    x = lab_batch(dataset.test, settings.batch_size, settings.seed)
    vae.check(x.to(device))
    shared = {"seed": settings.seed, "progress": not settings.quiet}
    size = {"batch_size": settings.batch_size, "optimizer": optimizer}
    if settings.epochs:
        fit(vae, dataset.train, epochs=settings.epochs, **size, **shared)
    table = evaluation.compare_estimators(vae, x, estimators, num_samples=settings.draws, **shared)
    print(f"{source}; gradients after {settings.epochs} epochs under the ELBO\n\n{table}\n")
    run.write(folder, config)
    export(table, "comparison", folder)
    curves = evaluation.train_under(
        first,
        dataset.train,
        estimators,
        budget=settings.budget,
        valid=dataset.valid,
        num_particles=HELD_OUT,
        **size,
        **shared,
    )
    print(curves)
    export(curves, "training", folder)
    print(f"\ntables and figures are in {folder}")
    return 0


def export(found: Any, name: str, folder: Path) -> None:
    """Write a table and its figure into the folder of the run."""
    found.to_csv(folder / f"{name}.csv")
    found.to_json(folder / f"{name}.json")
    found.to_latex(folder / f"{name}.tex")
    save(found.plot(), folder / "figures" / f"{name}.png")


def parse(argv: list[str], likelihood: str) -> tuple[Namespace, dict[str, Any], dict[str, pyro.infer.ELBO]]:
    """Read the arguments: settings, what of them goes into the configuration, and the estimators."""
    choices = Choices("compare", argv)
    add_common(choices, batch_size=32)
    add = choices.parser.add_argument
    shelf = ", ".join(run.shelves()["estimator"])
    among = f"names, or names with options as in Renyi(alpha=0.3), of {shelf}; pyro.NAME for those of pyro.infer"
    add("--estimators", default=ESTIMATORS, help=among)
    add("--particles", type=PositiveInt, default=8, help="of each estimator whose options do not say")
    add("--draws", type=PositiveInt, default=60, help="gradients drawn of each estimator")
    add(
        "--epochs",
        type=NonNegativeInt,
        default=10,
        help="under the ELBO before gradients are drawn; 0 for the first weights",
    )
    add("--learning-rate", type=PositiveFloat, default=1e-3, help="of Adam")
    for name, budget in BUDGETS.items():
        add(f"--{name}", type=PositiveInt | None, help=f"budget of each training: {first_line(budget)}")
    for axis in ("posterior", "likelihood", "prior"):
        choices.add(axis, run.shelves()[axis], {**DEFAULTS, "likelihood": likelihood}[axis])
    settings = read(choices)
    settings.budget = usage(budget_of, settings)
    estimators = usage(estimators_of, settings.estimators, settings.particles)
    axes = ("posterior", "likelihood", "prior")
    config = {k: v for k, v in vars(settings).items() if k not in {"run_dir", "quiet", "budget", *axes}}
    return settings, {**config, **{axis: choices.describe(axis, settings) for axis in axes}}, estimators


def budget_of(settings: Namespace) -> Budget:
    """Return the budget that was chosen."""
    given = {name: settings[name] for name in BUDGETS if settings[name] is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: expected one budget, got {len(given)}")
    return next((BUDGETS[name](amount) for name, amount in given.items()), Steps(STEPS))


def estimators_of(text: str, particles: int) -> dict[str, pyro.infer.ELBO]:
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
        raise ValueError(f"estimators: expected names or NAME(option=value), by commas, got {text!r}") from error
    shelf = run.shelves()["estimator"] | pyros()
    found = {}
    for name, cls, options in parsed:
        try:
            found[name] = build(run.resolve("estimators", cls, shelf), options, particles)
        except TypeError as error:
            raise ValueError(f"estimators: cannot build {name}: {error}") from error
    return found


def name_and_options(entry: ast.expr) -> tuple[str, dict[str, Any]]:
    """Return what ``NAME`` or ``NAME(option=value)`` says; values are plain ones."""
    if not isinstance(entry, ast.Call):
        return ast.unparse(entry), {}
    if entry.args or not all(keyword.arg for keyword in entry.keywords):
        raise ValueError("options have to be named")
    return ast.unparse(entry.func), {keyword.arg: ast.literal_eval(keyword.value) for keyword in entry.keywords}


def build(cls: type[pyro.infer.ELBO], options: dict[str, Any], particles: int) -> pyro.infer.ELBO:
    """Build an estimator, with so many particles where it takes their number."""
    presets = {"num_particles": particles}
    if cls.__module__.startswith("pyro."):
        known = inspect.signature(cls).parameters
        presets |= {name: value for name, value in VECTORIZED.items() if name in known}
    # MIWAE and its kind have two numbers of their own
    return cls(**options) if "M" in inspect.signature(cls).parameters else cls(**{**presets, **options})


def pyros() -> dict[str, type[pyro.infer.ELBO]]:
    """Return the estimators of Pyro by their names on the command line; torch.jit, of the Jit ones, is deprecated."""
    exported = {name: getattr(pyro.infer, name) for name in pyro.infer.__all__}
    return {
        f"pyro.{name}": cls
        for name, cls in exported.items()
        if inspect.isclass(cls) and issubclass(cls, pyro.infer.ELBO) and not name.startswith("Jit")
    }


def lab_batch(split: data.Split, n: int, seed: int) -> torch.Tensor:
    """Return data from all over a split, which may be sorted by class."""
    n = min(n, len(split))
    x = split.x[torch.arange(n) * len(split) // n]
    with fork_rng(seed=seed):
        return x if split.transform is None else split.transform(x)
