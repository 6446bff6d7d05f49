"""The command ``pyro-vae train``."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jsonargparse import ActionYesNo, Namespace
from jsonargparse.typing import PositiveInt

from pyro_vae._util.devices import resolve_device
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.threads import limit_threads
from pyro_vae.cli.choices import Choices, FiniteFloat, UsageError, look_up, table
from pyro_vae.cli.outcome import figures, summary
from pyro_vae.cli.resume import NOT_SAVED, resumed
from pyro_vae.cli.shared import (
    DEFAULTS,
    LIKELIHOODS,
    add_training,
    folder_of,
    named_options,
    names_of,
    read_training,
    save,
)
from pyro_vae.cli.suited import MANY, PASSES, SEQUENCE_RATE, named, options_of_kind, options_of_size
from pyro_vae.config import data as run_data
from pyro_vae.config import parts, run
from pyro_vae.config.complete import complete
from pyro_vae.config.program import build_program, can_build, takes_context
from pyro_vae.config.results import results, write_results
from pyro_vae.estimators import Estimator
from pyro_vae.programs import Program
from pyro_vae.programs.program import evaluating
from pyro_vae.training import PURPOSES, TF32, Autocast, EarlyStopping, fit
from pyro_vae.training.ranks.distributed import Ranks, in_process_group

#: Precision of the layers of networks in training.
PRECISIONS = {"float32": None, "tf32": TF32(), "bfloat16": Autocast(torch.bfloat16)}


@in_process_group
def train(argv: list[str]) -> int:
    """Train a VAE, evaluate it on the test data and write a run folder with figures."""
    ranks = Ranks.current()
    # usage errors are reported before any data is loaded, which determines the default likelihood
    settings, _ = parse(argv, LIKELIHOODS["grey"])
    folder = folder_of(settings, settings.data)
    settings, saved = resumed(folder, settings, argv, parse)
    device = resolve_device(ranks.local_device(settings.device))
    source = ranks.load(partial(run_data.load, saved or vars(settings)))
    if saved is None:
        words = [*argv, *options_of_kind(argv, source)]
        settings, config = parse(words, LIKELIHOODS[source.kind])
        if options := options_of_size(argv, config, source):
            settings, config = parse([*options, *words], LIKELIHOODS[source.kind])
        given = {arg.partition("=")[0].removeprefix("--program.") for arg in argv}
        config = run.plain(complete(config, source, given=given))
    else:
        config = saved
    rows = run_data.to_fit(source, config)
    vae, estimator = build_program(config), parts.build("estimator", config["estimator"])
    schedule = config.get("lr_schedule") and parts.build("lr_schedule", config["lr_schedule"])
    check_step(vae, estimator, source)
    if ranks.rank == 0:
        chosen = choice(config, source.kind, argv if saved is None else None)
        print("\n".join(filter(None, [str(source), source.columns, table(chosen)])))
    if saved is None:
        ranks.on_rank_zero(partial(run.write, folder, config))
    stop = EarlyStopping(settings.patience)
    limit_threads(vae, settings.batch_size)
    history = fit(
        vae,
        rows,
        valid=source.split("valid"),
        estimator=estimator,
        optimizer=partial(torch.optim.Adam, lr=settings.learning_rate),
        lr_schedule=schedule,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=device,
        run_dir=folder,
        resume=settings.resume,
        compile=settings.compile,
        precision=PRECISIONS[settings.precision],
        callbacks=[stop],
        progress=not settings.quiet,
    )
    if ranks.rank:
        return 0
    print(
        f"\n{len(history)} epochs in {history[-1]['seconds']:.0f} s; the weights are those of epoch "
        f"{stop.best_epoch}, with the best validation bound, {stop.best:.2f} nats per example\n"
    )
    how = {"num_particles": settings.num_particles, "seed": settings.seed, "progress": not settings.quiet}
    found = results(vae, source.split("test"), source.dataset.test.y if run.takes_labels(config) else None, **how)
    write_results(folder, found)
    print(summary(found))
    for title, figure in figures(vae, source, settings.seed).items():
        save(figure, folder / "figures" / f"{title}.png")
    save(history.plot(), folder / "figures" / "training.png")
    print(f"\nconfiguration, weights, metrics, results and figures are in {folder}")
    return 0


def parse(argv: list[str], likelihood: str) -> tuple[Namespace, dict[str, Any]]:
    """Parse the arguments, with a default likelihood; return settings and the entries of the configuration."""
    shelves = parts.shelves()
    name = Choices("train", argv).take("program")[0] or run.DEFAULT_PROGRAM["name"]
    program = look_up("program", name, shelves["program"])
    choices = Choices("train", [*options_of_program(program, argv), *argv])
    add_training(choices, batch_size=128)
    add = choices.option
    passes = f"most passes over the training data; {PASSES} from {MANY:,} rows on, --purpose has its own"
    add("--epochs", type=PositiveInt, default=150, help=passes)
    add("--patience", type=PositiveInt, default=20, help="epochs without a better validation bound before it stops")
    rate = f"learning rate of Adam; {SEQUENCE_RATE} for sequences, --purpose has its own"
    add("--learning-rate", type=FiniteFloat, default=1e-3, help=rate)
    add("--num-particles", type=PositiveInt, default=1000, help="samples per example for the log-likelihood")
    add("--compile", action=ActionYesNo, nargs="?", default=False, help="compile the training step")
    precision = "precision of the network layers; everything else is float32"
    add("--precision", choices=tuple(PRECISIONS), default="float32", help=precision)
    able = [{"program": {"name": name}} for name, cls in shelves["program"].items() if can_build(cls)]
    learn, see = (
        ", ".join(c["program"]["name"] for c in able if takes(c)) for takes in (run.takes_labels, takes_context)
    )
    what = (
        "what the VAE of a table is for, which sets defaults: density or, with --missing, imputation if it is left out"
    )
    add("--purpose", choices=tuple(PURPOSES), default=None, help=what)
    add("--missing", action="store_true", help="entries of the data may be missing (NaN, empty cells)")
    what = (
        f"columns of a table, or of obs of an .h5ad, as context, separated by commas; {run_data.LABELS} for the labels"
    )
    add("--covariates", type=str | None, help=f"{what} of other data; for --program {see}")
    add("--label", type=str | None, help=f"column of a table with the classes, for --program {learn}")
    add("--num-labels", type=PositiveInt | None, help="training examples that keep their label; all by default")
    add("--resume", action="store_true", help="resume the run in --run-dir with its own configuration")
    named = [*run.AXES, "program"]
    for axis in run.AXES:
        choices.add(axis, shelves[axis], {**DEFAULTS, "likelihood": likelihood}[axis])
    choices.add("program", shelves["program"], run.DEFAULT_PROGRAM["name"])
    if choices.take("lr-schedule")[0] is None:
        among = ", ".join(sorted(shelves["lr_schedule"]))
        add("--lr-schedule", help=f"schedule that multiplies the learning rate: one of {among}; none by default")
    else:
        choices.add("lr-schedule", shelves["lr_schedule"], None)
        named.append("lr_schedule")
    settings = read_training(choices)
    settings.covariates = names_of("covariates", settings.covariates)
    config = {k: v for k, v in vars(settings).items() if k not in {*NOT_SAVED, *named}}
    config |= {part: choices.describe(part, settings) for part in named}
    if settings.num_labels and not run.takes_labels(config):
        raise UsageError(f"num-labels: expected a --program that learns from labels ({learn}), got {name}")
    if settings.covariates and not takes_context(config):
        raise UsageError(f"covariates: expected a --program that takes them ({see}), got {name}")
    return settings, config


def options_of_program(program: type[Program], argv: list[str]) -> list[str]:
    """Return what suits a program, and ``--missing``, as options; those of the user come after them and win."""
    found, shelves = ["--layout=tc"] * ("summary" in parts.required(program)), parts.shelves()
    for axis, part in program.default_parts().items():
        name, _ = Choices("train", argv).take(axis)
        known = parts.arguments(shelves[axis].get(name, getattr(part, "func", part)))
        own, *options = named(axis, part)
        found += [] if name else [own]
        found += [option for option in options if option.partition("=")[0].rpartition(".")[2] in known]
    if "--missing" not in argv:
        return found
    if "missing" in parts.arguments(program):
        return [*found, "--program.missing=true"]
    # a program with a model of the missing entries needs no option
    if "mask" not in parts.required(program):
        able = [cls for cls in shelves["program"].values() if {"mask", "missing"} & parts.arguments(cls).keys()]
        known = ", ".join(cls.__name__ for cls in able if can_build(cls))
        raise UsageError(
            f"missing: expected a --program that learns from missing values ({known}), got {program.__name__}. Choose "
            "one of them, or fill the values first with a run of a VAE: pyro-vae impute"
        )
    return found


def choice(config: dict[str, Any], kind: str, argv: list[str] | None) -> dict[str, str]:
    """Return the chosen parts in words; with the command line of a new run also why, and which option changes them."""
    chosen = {axis: config[axis]["name"] for axis in (*run.AXES, "program")}
    nets = {part: (config[part]["options"].get("net") or {}).get("name") for part in ("posterior", "likelihood")}
    chosen["networks"] = " and ".join(filter(None, nets.values()))
    if argv is None:
        return chosen
    given = {arg.partition("=")[0] for arg in argv}
    if "--program" not in given and chosen["program"] != run.DEFAULT_PROGRAM["name"]:
        chosen["program"] += f", as the data are {kind} (--program chooses another)"
    suited = parts.shelves()["program"][config["program"]["name"]].default_parts()
    if "--likelihood" not in given:
        why = f"which suits {config['program']['name']}" if "likelihood" in suited else f"as the data are {kind}"
        why += f" and the purpose is {config['purpose']}" if "--purpose" in given else ""
        chosen["likelihood"] += f", {why} (--likelihood chooses another)"
    others = [f"--{part}.net" for part, net in nets.items() if net and f"--{part}.net" not in given]
    chosen["networks"] += f" ({' and '.join(others)} choose{'s' if len(others) == 1 else ''} others)" if others else ""
    return chosen


def check_step(vae: Program, estimator: Estimator, source: run_data.Source) -> None:
    """Raise errors of data, parts and estimator before there is a run folder."""
    with evaluating(vae), fork_rng():
        batch = source.batch("train", slice(256))
        try:
            vae.check(*batch)
            estimator.loss(vae.model, vae.guide, *batch)
        except ValueError as error:
            raise named_options(error, source) from error
        except (RuntimeError, TypeError) as error:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            raise ValueError(f"these parts do not work together on these data: {what}") from error
