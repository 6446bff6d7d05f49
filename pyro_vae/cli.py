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
from argparse import ArgumentParser as PlainParser
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import nn

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

#: Required arguments that the command gives itself, and options that are no choice of its user.
GIVEN = {"latent", "shape", "in_shape", "out_shape", "posterior"}
HIDDEN = {"context", "inplace", "device", "dtype"}


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
        command = look_up("command", name, COMMANDS)
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
    Choices("list", argv).parse()
    shelves = {f"{kind}s": shelf for kind, shelf in run.shelves().items()}
    for title, shelf in {**shelves, "data sets": LOADERS}.items():
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
    dataset = data.load(name, binarize=settings.binarize)
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
    choices = Choices("train", argv)
    add = choices.parser.add_argument
    add("--data", default="digits", help=f"data set: {', '.join(data.names())}")
    kinds = ("none", *BINARIZATIONS)
    add("--binarize", choices=kinds, default="none", help="how grey levels become bits")
    add("--latent", type=PositiveInt, default=8, help="number of latents")
    add("--epochs", type=PositiveInt, default=150, help="passes over the training data, at most")
    add("--patience", type=PositiveInt, default=20, help="epochs without a better validation bound")
    add("--batch-size", type=PositiveInt, default=128, help="data a step")
    add("--learning-rate", type=PositiveFloat, default=1e-3, help="of Adam")
    add("--particles", type=PositiveInt, default=1000, help="draws for the log-likelihood")
    add("--seed", type=int, default=0, help="of weights, order of the data and noise")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--run-dir", type=str | None, help="folder for the results; runs/DATA-TIME by default")
    add("--quiet", action="store_true", help="show no progress bar")
    for axis in run.AXES:
        choices.add(axis, run.shelves()[axis], {**DEFAULTS, "likelihood": likelihood}[axis])
    settings = choices.parse()
    look_up("data", settings.data, LOADERS)
    settings.binarize = None if settings.binarize == "none" else settings.binarize
    config = {k: v for k, v in vars(settings).items() if k not in {"run_dir", "quiet", *run.AXES}}
    return settings, {**config, **{axis: choices.describe(axis, settings) for axis in run.AXES}}


class Choices:
    """A command line whose options depend on the classes that it names.

    Args:
        command: the name of the command
        argv: its arguments
    """

    def __init__(self, command: str, argv: list[str]) -> None:
        self.argv, self.chosen = argv, {}
        self.parser = ArgumentParser(
            prog=f"pyro-vae {command}",
            usage="%(prog)s [options]",
            exit_on_error=False,
            allow_abbrev=False,
            parser_mode="json",
        )

    def add(self, key: str, shelf: dict[str, type], default: str | None) -> None:
        """Look up what ``--key NAME`` names, and add its options as ``--key.OPTION``.

        Args:
            key: ``"posterior"``, ``"posterior.net"``, ...
            shelf: what may be named
            default: the name where there is none
        """
        name, self.argv = self.take(key)
        cls = self.chosen[key] = look_up(key, default if name is None else name, shelf)
        among = ", ".join(sorted(shelf)) if len(shelf) < 20 else "those of `pyro-vae list`"
        about = f"{first_line(cls)} (--{key} chooses among {among}.)"
        group = self.parser.add_argument_group(f"{key} {cls.__name__}", about)
        hints = typing.get_type_hints(cls.__init__)
        skip = HIDDEN | GIVEN.intersection(run.required(cls))
        for option, parameter in inspect.signature(cls).parameters.items():
            names, plain = names_and_values(hints.get(option))
            if option in skip or names is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            skip.add(option)
            self.add_by_name(group, f"{key}.{option}", names, plain, parameter.default)
        group.add_class_arguments(cls, key, as_group=False, skip=skip)

    def add_by_name(self, group: Any, key: str, shelf: dict[str, type], plain: Any, preset: Any) -> None:
        """Add an option that takes a name, or plain values of the type ``plain`` where that is not None."""
        value, _ = self.take(key)
        default = next((name for name, cls in shelf.items() if cls is preset), None)
        is_name = default is not None if value is None else plain is None or value[:1].isalpha()
        if is_name and shelf:
            self.add(key, shelf, default)
        elif plain is not None:
            among = f"a value, or one of {', '.join(shelf)}" if shelf else "a value"
            group.add_argument(f"--{key}", type=plain, default=preset, help=among)
        elif preset is inspect.Parameter.empty:
            part, _, option = key.rpartition(".")
            raise UsageError(
                f"{part}: {self.chosen[part].__name__} needs `{option}`, which the command cannot make: "
                "build it in Python, and train it by pyro_vae.fit"
            )

    def take(self, key: str) -> tuple[str | None, list[str]]:
        """Return the value of ``--key`` and the arguments without it."""
        parser = PlainParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument(f"--{key}", dest="value")
        found, rest = usage(parser.parse_known_args, self.argv)
        return found.value, rest

    def parse(self) -> Namespace:
        """Return the settings."""
        return usage(self.parser.parse_args, self.argv)

    def describe(self, key: str, settings: Namespace) -> dict[str, Any]:
        """Return what was chosen for ``key`` as ``{"name": ..., "options": {...}}``."""
        inner = [c for c in self.chosen if c.rpartition(".")[0] == key]
        plain = vars(settings.get(key) or Namespace()).items()
        options = {name: value for name, value in plain if f"{key}.{name}" not in inner}
        nested = {c.rpartition(".")[2]: self.describe(c, settings) for c in inner}
        return {"name": self.chosen[key].__name__, "options": {**options, **nested}}


def names_and_values(annotation: Any) -> tuple[dict[str, type] | None, Any]:
    """Say what an option of this annotation may name (None: it takes no object), and the type of its plain values."""
    shelves, names, plain = run.shelves(), {}, []
    takes_objects = False
    for member in members(annotation):
        if typing.get_origin(member) is Callable:
            takes, gives = typing.get_args(member)
            gives = members(gives)
            if Net in gives:
                names |= shelves["network"]
            elif float in gives:
                names |= shelves["schedule"]
            elif nn.Module in gives and takes == []:
                names |= shelves["activation"]
        elif inspect.isclass(member) and member.__module__ != "builtins":
            names |= {name: cls for name, cls in shelves["scale"].items() if issubclass(cls, member)}
        elif any(names_and_values(inner)[0] is not None for inner in typing.get_args(member)):
            pass  # a sequence of objects, which no name makes
        else:
            plain += [] if member is types.NoneType else [member]
            continue
        takes_objects = True
    values = typing.Union[tuple(plain)] if plain else None  # noqa: UP007 (the members are data)
    return names if takes_objects else None, values


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def look_up(what: str, name: str | None, table: Mapping[str, Any]) -> Any:
    """Return the entry of a table, or say what was expected."""
    return usage(run.resolve, what, name, table)


def usage(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function, and tell its errors as mistakes on the command line."""
    try:
        return function(*args)
    except (ArgumentError, ValueError) as error:
        text = re.sub(r'Parser key "([^"]*)":', r"\1:", str(error))
        text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(text.split()))
        raise UsageError(text) from error


def usable(name: str) -> torch.device:
    """Return the device of this name, or say that it cannot be used."""
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: cannot use {name}: {str(error).splitlines()[0]}") from error


def try_out(vae: VAE, estimator: Estimator, split: data.Split) -> None:
    """Meet mistakes of data, parts and estimator before there is a run folder."""
    x = split.x[:256]
    with evaluating(vae), fork_rng():
        x = x if split.transform is None else split.transform(x)
        try:
            vae.check(x)
            estimator.loss(vae.model, vae.guide, x)
        except (RuntimeError, TypeError) as error:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            raise ValueError(f"these parts do not work together on these data: {what}") from error


def results(vae: VAE, dataset: data.Dataset, settings: Namespace) -> str:
    """Evaluate on the test data and return the table of results."""
    x, device = dataset.test.x, next(vae.parameters()).device
    found = evaluation.log_likelihood(vae, x, num_particles=settings.particles, progress=not settings.quiet)
    units = evaluation.latents(vae, x)
    rows = []
    with evaluating(vae), fork_rng(device, settings.seed):
        for batch in x.to(device).split(250):
            terms = trace(vae.model, vae.guide, (batch,), {}, num_particles=16)
            gain = sum(terms.expect(site.log_p).mean(0) for site in terms.observed)
            kl = sum(terms.expect(ELBO().divergence(site)).mean(0) for site in terms.latent)
            rows.append(torch.stack([gain - kl, gain, kl]).double().cpu())
    per_datum = torch.cat(rows, 1)
    mean, error = per_datum.mean(1).tolist(), (per_datum.std(1) / len(x) ** 0.5).tolist()
    lines = {
        name: f"{m:10.2f}  {e:10.2f}"
        for name, m, e in zip(("bound (ELBO)", "reconstruction", "KL"), mean, error, strict=True)
    }
    lines["log-likelihood"] = (
        f"{found.mean:10.2f}  {found.standard_error:10.2f}   importance sampling, {found.num_particles:,} particles, "
        f"their error {found.monte_carlo_error:.3f}"
    )
    active = ", ".join(f"{n} of {units.variance[site].numel()}" for site, n in units.active.items())
    lines["active units"] = f"{active:>10}               variance of the mean above {units.threshold}"
    head = {f"test, n = {len(x):,}": f"{'nats/datum':>10}  {'std. error':>10}"}
    return table({**head, **lines})


def figures(vae: VAE, split: data.Split, seed: int) -> dict[str, Any]:
    """Draw what the model makes of test data, and of nothing."""
    device = next(vae.parameters()).device
    # from all over the split, which may be sorted by class
    x = split.x[torch.arange(min(32, len(split))) * len(split) // min(32, len(split))].to(device)
    name = type(vae.likelihood).__name__
    with evaluating(vae), fork_rng(device, seed):
        x_hat, samples = vae.reconstruct(x), vae.sample(80, mean=True)
        means = [mean_of(vae.encode(b.to(device)), 64).flatten(1).cpu() for b in split.x.split(500)]
    draw = plots.vectors
    if plots.is_image(x.shape[1:]):
        draw = partial(plots.image_grid, rows=5)
    return {
        "reconstructions": plots.reconstructions(x, x_hat, title="Test data and reconstructions"),
        "samples": draw(samples, title=f"Samples: means of p(x|z), {name}, at draws z of the prior"),
        "latent": plots.latent_map(torch.cat(means), split.y),
    }


def save(figure: Any, path: Path) -> None:
    """Write a figure, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def first_line(obj: Any) -> str:
    """Return the first line of a docstring, without its markup."""
    line = (inspect.getdoc(obj) or "").partition("\n")[0]
    return re.sub(r"(?::\w+)?:?`+~?([^`]*)`+", r"\1", line)


def table(rows: Mapping[str, str]) -> str:
    """Return names and texts in two columns."""
    width = max(map(len, rows), default=0) + 3
    return "\n".join(f"  {name:{width}}{text}".rstrip() for name, text in rows.items())
