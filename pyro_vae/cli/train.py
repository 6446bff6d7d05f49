"""The command ``pyro-vae train``."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import Any

import torch
from jsonargparse import ActionYesNo, Namespace
from jsonargparse.typing import PositiveFloat, PositiveInt

from pyro_vae import data, plots, tasks
from pyro_vae._util.devices import resolve_device
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.threads import limit_threads
from pyro_vae.cli.choices import Choices, UsageError, table
from pyro_vae.cli.resume import NOT_SAVED, resumed
from pyro_vae.cli.shared import (
    COUNTS,
    DEFAULTS,
    LIKELIHOODS,
    add_training,
    evenly_spaced,
    folder_of,
    read_training,
    save,
)
from pyro_vae.config import data as run_data
from pyro_vae.config import parts, run
from pyro_vae.config.results import results, write_results
from pyro_vae.estimators import Estimator
from pyro_vae.programs import VAE
from pyro_vae.programs.program import evaluating
from pyro_vae.training import TF32, Autocast, EarlyStopping, ImputationDefaults, TableDefaults, fit
from pyro_vae.training.ranks.distributed import Ranks, in_process_group

#: Hidden layers and learning rate for tables: few large steps that become smaller, of which held-out rows choose the
#: best epoch. A network that is larger than that of ``TableDefaults`` imputes better.
TABLE_HIDDEN, TABLE_RATE = [128, 128], 1e-2
#: Precision of the layers of networks in training.
PRECISIONS = {"float32": None, "tf32": TF32(), "bfloat16": Autocast(torch.bfloat16)}


@in_process_group
def train(argv: list[str]) -> int:
    """Train a VAE, evaluate it on the test data and write a run folder with figures."""
    ranks = Ranks.current()
    argv = ["--program.missing=true" if arg == "--missing" else arg for arg in argv]
    # usage errors are reported before any data is loaded, which determines the default likelihood
    settings, _ = parse(argv, LIKELIHOODS["grey"])
    folder = folder_of(settings, settings.data)
    settings, saved = resumed(folder, settings, argv, parse)
    device = resolve_device(ranks.local_device(settings.device))
    source = ranks.load(partial(run_data.load, saved or vars(settings)))
    if saved is None:
        given = {arg.partition("=")[0] for arg in argv}
        more = COUNTS if source.kind == "sparse counts" and given.isdisjoint({"--program", "--likelihood"}) else ()
        settings, config = parse([*argv, *more], LIKELIHOODS[source.kind])
        if options := options_of_table(argv, config, source):
            settings, config = parse([*options, *argv], LIKELIHOODS[source.kind])
        alpha = any(arg.startswith("--program.alpha") for arg in argv)
        config = run.plain(run_data.complete(config, source, alpha=alpha))
    else:
        config = saved
    dataset, rows = source.dataset, run_data.to_fit(source.dataset, config)
    vae, estimator = run.program(config), parts.build("estimator", config["estimator"])
    schedule = config.get("lr_schedule") and parts.build("lr_schedule", config["lr_schedule"])
    check_step(vae, estimator, dataset.train)
    chosen = {axis: config[axis]["name"] for axis in (*run.AXES, "program")}
    if saved is None and "--likelihood" not in {arg.partition("=")[0] for arg in argv}:
        chosen["likelihood"] += f", as the data are {source.kind} (--likelihood chooses another)"
    if ranks.rank == 0:
        print("\n".join(filter(None, [str(source), source.columns, table(chosen)])))
    if saved is None:
        ranks.on_rank_zero(partial(run.write, folder, config))
    stop = EarlyStopping(settings.patience)
    limit_threads(vae, settings.batch_size)
    history = fit(
        vae,
        rows,
        valid=dataset.valid,
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
    found = results(vae, dataset.test, **how)
    write_results(folder, found)
    print(summary(found))
    for title, figure in figures(vae, dataset.test, settings.seed).items():
        save(figure, folder / "figures" / f"{title}.png")
    save(history.plot(), folder / "figures" / "training.png")
    print(f"\nconfiguration, weights, metrics, results and figures are in {folder}")
    return 0


def parse(argv: list[str], likelihood: str) -> tuple[Namespace, dict[str, Any]]:
    """Parse the arguments, with a default likelihood; return settings and the entries of the configuration."""
    choices = Choices("train", argv)
    add_training(choices, batch_size=128)
    add = choices.option
    rule = "; for a table 10 times the square root of its number of rows, at least 400, in steps"
    add("--epochs", type=PositiveInt, default=150, help=f"largest number of passes over the training data{rule}")
    add("--patience", type=PositiveInt, default=20, help="epochs without a better validation bound before it stops")
    rate = f"learning rate of Adam; for a table {TABLE_RATE}, which falls to 0 along a cosine"
    add("--learning-rate", type=PositiveFloat, default=1e-3, help=rate)
    add("--num-particles", type=PositiveInt, default=1000, help="samples per example for the log-likelihood")
    add("--compile", action=ActionYesNo, nargs="?", default=False, help="compile the training step")
    precision = "precision of the network layers; everything else is float32"
    add("--precision", choices=tuple(PRECISIONS), default="float32", help=precision)
    learn = ", ".join(name for name in parts.shelves()["program"] if run.takes_labels({"program": {"name": name}}))
    add("--label", type=str | None, help=f"column of a table with the classes, for --program {learn}")
    add("--num-labels", type=PositiveInt | None, help="training examples that keep their label; all by default")
    add("--resume", action="store_true", help="resume the run in --run-dir with its own configuration")
    shelves, named = parts.shelves(), [*run.AXES, "program"]
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
    config = {k: v for k, v in vars(settings).items() if k not in {*NOT_SAVED, *named}}
    config |= {part: choices.describe(part, settings) for part in named}
    if settings.num_labels and not run.takes_labels(config):
        name = config["program"]["name"]
        raise UsageError(f"num-labels: expected a --program that learns from labels ({learn}), got {name}")
    return settings, config


def options_of_table(argv: list[str], config: dict[str, Any], source: run_data.Source) -> list[str]:
    """Return the default options of a VAE for a table; those of the user come after them and win."""
    real = source.kind in ("real", "real columns", "mixed") and len(source.dataset.shape) == 1
    if not real or not run_data.is_file(config["data"]) or config["program"]["name"] != "VAE":
        return []
    given = {arg.partition("=")[0] for arg in argv}
    rows, batch_size = len(source.dataset.train), config["batch_size"]
    missing = config["program"]["options"].get("missing")
    sizes = (ImputationDefaults if missing else TableDefaults)(rows=rows, columns=source.dataset.shape[0])
    epochs = config["epochs"] if "--epochs" in given else sizes.epochs(batch_size)
    options = [f"--epochs={epochs}", f"--learning-rate={TABLE_RATE}"]
    if not given & {"--lr-schedule", "--learning-rate"}:
        options += ["--lr-schedule=Cosine", f"--lr-schedule.num_steps={epochs * math.ceil(rows / batch_size)}"]
    for part in ("posterior", "likelihood", "prior"):
        if (config[part]["options"].get("net") or {}).get("name") == "MLP":
            options.append(f"--{part}.net.hidden={list(sizes.hidden) if missing else TABLE_HIDDEN}")
            if missing and part == "likelihood":  # correlations of columns, which a network learns slowly
                options.append("--likelihood.net.linear=true")
    return [*options, f"--latent={sizes.latent}", f"--patience={max(20, epochs // 4)}"] if missing else options


def check_step(vae: VAE, estimator: Estimator, split: data.Split) -> None:
    """Raise errors of data, parts and estimator before there is a run folder."""
    with evaluating(vae), fork_rng():
        x = split.batch(slice(256))
        try:
            vae.check(x)
            estimator.loss(vae.model, vae.guide, x)
        except ValueError as error:
            raise ValueError(str(error).replace("pass missing=True to the program", "pass --missing")) from error
        except (RuntimeError, TypeError) as error:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            raise ValueError(f"these parts do not work together on these data: {what}") from error


def summary(found: dict[str, Any]) -> str:
    """Return results as a table."""
    names = {"bound": "bound (ELBO)", "kl": "KL", "log_likelihood": "log-likelihood"}
    lines = {f"test, n = {found['num_examples']:,}": f"{'nats/example':>12}  {'std. error':>10}"}
    for key in ("bound", "reconstruction", "kl", "log_likelihood"):
        mean, error = found[key]["mean"], found[key]["std_error"]
        lines[names.get(key, key)] = f"{mean:12.2f}  {'-' if error is None else f'{error:.2f}':>10}"
    likelihood = found["log_likelihood"]
    lines["log-likelihood"] += f"   importance sampling, {likelihood['num_particles']:,} particles"
    if likelihood["monte_carlo_error"] is not None:
        lines["log-likelihood"] += f", Monte Carlo error {likelihood['monte_carlo_error']:.3f}"
    lines["active units"] = ", ".join(f"{active} of {units}" for active, units in found["active_units"].values())
    return table(lines)


def figures(vae: VAE, split: data.Split, seed: int) -> dict[str, Any]:
    """Plot reconstructions of test data, new samples and the map of the latents."""
    device = vae.device
    x = split.batch(evenly_spaced(len(split), 32)).to(device)
    means = tasks.embed(vae, split, seed=seed, progress=False).mean
    latent = {"latent": plots.latent_map(means, split.y)}
    if hasattr(vae.likelihood, "columns"):  # columns have units of their own
        return latent
    with evaluating(vae), fork_rng(device, seed):
        x_hat = vae.reconstruct(x, seed=seed)
        found = {"reconstructions": plots.reconstructions(x, x_hat, title="Test data and reconstructions"), **latent}
        if "library" in inspect.signature(vae.sample).parameters:  # a size per sample, which only a user knows
            return found
        samples = vae.sample(80, mean=True, seed=seed)
    draw = partial(plots.image_grid, rows=5) if plots.is_image(x.shape[1:]) else plots.vectors
    title = f"Samples: means of p(x|z), {type(vae.likelihood).__name__}, at samples z of the prior"
    return {**found, "samples": draw(samples, title=title)}
