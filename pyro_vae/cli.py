"""The ``pyro-vae`` command.

What can be chosen is read off the shelves, and the options of a choice off its constructor. Names are looked up
before the parser of the chosen classes is made: no import path and no file is followed, and ``--help`` shows the
options of what was chosen.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from argparse import ArgumentError
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor, nn

import pyro_vae
from pyro_vae import data, evaluation, plots, run
from pyro_vae.data.binarize import CHOICES as BINARIZATIONS
from pyro_vae.data.sources import LOADERS
from pyro_vae.estimators import ELBO, Estimator
from pyro_vae.estimators.trace import run as trace
from pyro_vae.evaluation.latents import mean_of
from pyro_vae.nets import Net
from pyro_vae.programs import VAE
from pyro_vae.programs.program import evaluating
from pyro_vae.rng import fork_rng
from pyro_vae.training import EarlyStopping, NonFiniteError, fit

__all__ = ["main"]

#: Chosen where nothing is said; the likelihood goes by the kind of the data.
DEFAULTS = {"posterior": "MeanFieldNormal", "prior": "StandardNormal", "estimator": "ELBO"}
LIKELIHOODS = {"binary": "Bernoulli", "grey": "ContinuousBernoulli"}

#: Arguments that the command gives itself, or that are no choice of its user.
HIDDEN = {"latent", "shape", "in_shape", "out_shape", "context", "posterior"}
HIDDEN |= {"inplace", "device", "dtype"}


class UsageError(ValueError):
    """A mistake on the command line."""


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: what follows the name of the command; that of the process by default

    Returns:
        The exit status: 0, 1 for an error in the work, 2 for a mistake on the command line.

    Example:
        >>> main(["--version"])
        pyro-vae 0.1.0
        0
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("-h", "--help"):
        print("usage: pyro-vae COMMAND [options], where COMMAND is one of\n")
        print(table({key: first_line(command) for key, command in COMMANDS.items()}))
        print("\npyro-vae COMMAND --help shows the options of a command.")
        return 0
    if name == "--version":
        print(f"pyro-vae {pyro_vae.__version__}")
        return 0
    where = "pyro-vae"
    try:
        command = named("command", name, COMMANDS)
        where = f"pyro-vae {name}"
        return command(rest)
    except SystemExit as end:  # of --help
        return int(end.code or 0)
    except KeyboardInterrupt:
        print(f"{where}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, NonFiniteError) as error:
        print(f"{where}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def list_shelves(argv: list[str]) -> int:
    """Show what there is to choose from."""
    parse_with(new_parser("list"), argv)
    shelves = run.shelves()
    kinds = ("prior", "likelihood", "posterior", "estimator", "network", "scale", "schedule")
    for title, shelf in {**{f"{k}s": shelves[k] for k in kinds}, "data sets": LOADERS}.items():
        print(f"{title}\n{table({name: first_line(x) for name, x in shelf.items()})}\n")
    return 0


def train(argv: list[str]) -> int:
    """Train a VAE, evaluate it on the test data and leave a run folder with figures."""
    # mistakes are told before the data are loaded, which tell the default likelihood
    settings, _ = parse(argv, LIKELIHOODS["grey"])
    name, now = settings.data, datetime.now(timezone.utc)
    folder = Path(settings.run_dir or Path("runs") / f"{name}-{now:%Y%m%dT%H%M%SZ}")
    run.refuse_used(folder)
    device = usable(settings.device)
    dataset = data.load(name, binarize=None if settings.binarize == "none" else settings.binarize)
    settings, config = parse(argv, LIKELIHOODS[dataset.kind])
    config = run.plain({**config, "shape": dataset.shape})
    vae, estimator = run.program(config), run.build("estimator", config["estimator"])
    try_out(vae, estimator, dataset.train)
    print(f"{dataset!r}")
    chosen = {axis: config[axis]["name"] for axis in run.AXES}
    if "--likelihood" not in {arg.partition("=")[0] for arg in argv}:
        chosen["likelihood"] += f", as the data are {dataset.kind} (--likelihood chooses another)"
    print(table(chosen))
    run.write(folder, config)
    stop = EarlyStopping(settings.patience)
    history = fit(
        vae,
        dataset.train,
        valid=dataset.valid,
        estimator=estimator,
        optimizer=partial(torch.optim.Adam, lr=settings.learning_rate),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=device,
        run_dir=folder,
        callbacks=[stop],
        progress=not settings.quiet,
    )
    print(
        f"\n{history.epochs} epochs in {history['seconds'][-1]:.0f} s; kept the weights of epoch {stop.best_epoch}, "
        f"with the best validation bound, {stop.best:.2f} nats per datum\n"
    )
    print(results(vae, dataset, settings))
    for title, figure in figures(vae, dataset.test, settings.seed).items():
        save(figure, folder / "figures" / f"{title}.png")
    save(history.plot(), folder / "figures" / "training.png")
    print(f"\nconfiguration, weights, metrics and figures are in {folder}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {"train": train, "list": list_shelves}


def parse(argv: list[str], likelihood: str) -> tuple[Namespace, dict[str, Any]]:
    """Read the arguments of ``train``.

    Args:
        argv: the arguments
        likelihood: the name of the likelihood where none is given

    Returns:
        The settings, and what of them goes into the configuration, parts as names and options.
    """
    parser = new_parser("train")
    add = parser.add_argument
    add("--data", default="digits", help=f"data set: {', '.join(data.names())}")
    kinds = ("none", *BINARIZATIONS)
    add("--binarize", choices=kinds, default="none", help="how grey levels become bits")
    add("--latent", type=PositiveInt, default=16, help="number of latents")
    add("--epochs", type=PositiveInt, default=150, help="passes over the training data, at most")
    add("--patience", type=PositiveInt, default=20, help="epochs without a better validation bound")
    add("--batch-size", type=PositiveInt, default=128, help="data a step")
    add("--learning-rate", type=PositiveFloat, default=1e-3, help="of Adam")
    add("--particles", type=PositiveInt, default=1000, help="draws for the log-likelihood")
    add("--seed", type=int, default=0, help="of weights, order of the data and noise")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--run-dir", type=str | None, help="where results go (default: runs/DATA-TIME)")
    add("--quiet", action="store_true", help="show no progress bar")
    chosen: dict[str, type] = {}
    for axis in run.AXES:
        default = {**DEFAULTS, "likelihood": likelihood}[axis]
        argv = add_choice(parser, chosen, axis, argv, default)
    settings = parse_with(parser, argv)
    named("data", settings.data, LOADERS)
    config = {k: v for k, v in vars(settings).items() if k not in {"run_dir", "quiet", *run.AXES}}
    return settings, {**config, **{axis: describe(axis, chosen, settings) for axis in run.AXES}}


def add_choice(
    parser: ArgumentParser, chosen: dict[str, type], key: str, argv: list[str], default: str
) -> list[str]:
    """Take ``--key NAME`` out of the arguments and add the options of what it names.

    Args:
        parser: gets the options
        chosen: gets the class under ``key``, and those that its options name under ``key.option``
        key: an axis, or the place of an option that takes a name
        argv: the arguments
        default: what is named where ``argv`` does not

    Returns:
        The arguments without the names.
    """
    name, argv = take(argv, key)
    shelf = run.shelf_of(default)
    cls = chosen[key] = named(key, default if name is None else name, shelf)
    group = parser.add_argument_group(
        f"--{key} {cls.__name__}", f"{first_line(cls)} To choose from: {', '.join(sorted(shelf))}."
    )
    return argv
