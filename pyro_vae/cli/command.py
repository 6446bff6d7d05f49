"""The ``pyro-vae`` command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jsonargparse import ActionYesNo, Namespace
from jsonargparse.typing import PositiveFloat, PositiveInt

import pyro_vae
from pyro_vae import data, evaluation, plots
from pyro_vae._util.devices import resolve_device
from pyro_vae._util.random_state import fork_rng
from pyro_vae.cli import data as cli_data
from pyro_vae.cli.choices import Choices, UsageError, first_line, look_up, table
from pyro_vae.cli.compare import compare
from pyro_vae.cli.evaluate import evaluate
from pyro_vae.cli.explore import explore
from pyro_vae.cli.report import report
from pyro_vae.cli.resume import BESIDE, earlier
from pyro_vae.cli.shared import DEFAULTS, LIKELIHOODS, add_common, folder_of, read, save
from pyro_vae.cli.tasks import TASKS
from pyro_vae.config import run
from pyro_vae.data.sources import LOADERS
from pyro_vae.estimators import ELBO, Estimator
from pyro_vae.evaluation.posterior.posterior_means import posterior_means
from pyro_vae.programs import VAE
from pyro_vae.programs.program import evaluating
from pyro_vae.trace.tracing import run as trace
from pyro_vae.training import TF32, Autocast, EarlyStopping, Interrupted, LostRankError, NonFiniteError, fit
from pyro_vae.training.ranks.distributed import Ranks, in_process_group

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: what follows the name of the command; that of the process by default

    Returns:
        The exit status: 0, 1 for an error in the work, 2 for a mistake on the command line, 130 and 143 for a
        training that SIGINT and SIGTERM ended, once it is saved.

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
    except KeyboardInterrupt as end:
        number = end.number if isinstance(end, Interrupted) else signal.SIGINT
        print(f"{where}: interrupted{f' by {end}' if str(end) else ''}", file=sys.stderr)
        return 128 + number
    except (ValueError, OSError, ImportError, NonFiniteError, LostRankError) as error:
        print(f"{where}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def list_shelves(argv: list[str]) -> int:
    """Show what there is to choose from."""
    Choices("list", argv).parse()
    shelves = {f"{kind}s": shelf for kind, shelf in run.shelves().items()}
    for title, shelf in {**shelves, "data sets": LOADERS}.items():
        print(f"{title}\n{table({name: first_line(x) for name, x in shelf.items()})}\n")
    return 0


@in_process_group
def train(argv: list[str]) -> int:
    """Train a VAE, evaluate it on the test data and leave a run folder with figures."""
    ranks = Ranks.current()
    argv = ["--program.missing=true" if arg == "--missing" else arg for arg in argv]
    # mistakes are told before the data are loaded, which tell the default likelihood
    settings, _ = parse(argv, LIKELIHOODS["grey"])
    folder = folder_of(settings, settings.data)
    settings, saved = earlier(folder, settings, argv, parse)
    device = resolve_device(ranks.local_device(settings.device))
    source = ranks.load(partial(cli_data.load, saved or vars(settings)))
    if saved is None:
        settings, config = parse(argv, LIKELIHOODS[source.kind])
        config = run.plain(cli_data.completed(config, source, argv))
    else:
        config = saved
    dataset, rows = cli_data.labelled(source.dataset, config)
    vae, estimator = run.program(config), run.build("estimator", config["estimator"])
    lr_factor = config.get("lr_factor") and run.build("rate", config["lr_factor"])
    try_out(vae, estimator, dataset.train)
    chosen = {axis: config[axis]["name"] for axis in (*run.AXES, "program")}
    if saved is None and "--likelihood" not in {arg.partition("=")[0] for arg in argv}:
        chosen["likelihood"] += f", as the data are {source.kind} (--likelihood chooses another)"
    if ranks.rank == 0:
        print(f"{source}\n{table(chosen)}")
    if saved is None:
        ranks.on_rank_zero(partial(run.write, folder, config))
    stop = EarlyStopping(settings.patience)
    history = fit(
        vae,
        rows,
        valid=dataset.valid,
        estimator=estimator,
        optimizer=partial(torch.optim.Adam, lr=settings.learning_rate),
        lr_factor=lr_factor,
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
        f"\n{len(history)} epochs in {history[-1]['seconds']:.0f} s; kept the weights of epoch {stop.best_epoch}, "
        f"with the best validation bound, {stop.best:.2f} nats per datum\n"
    )
    print(results(vae, dataset, settings))
    for title, figure in figures(vae, dataset.test, settings.seed).items():
        save(figure, folder / "figures" / f"{title}.png")
    save(history.plot(), folder / "figures" / "training.png")
    print(f"\nconfiguration, weights, metrics and figures are in {folder}")
    return 0


#: Of the layers of networks in training.
PRECISIONS = {"float32": None, "tf32": TF32(), "bfloat16": Autocast(torch.bfloat16)}

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    **TASKS,
    "explore": explore,
    "report": report,
    "list": list_shelves,
}


def parse(argv: list[str], likelihood: str) -> tuple[Namespace, dict[str, Any]]:
    """Read the arguments of ``train``.

    Args:
        argv: the arguments
        likelihood: the name of the likelihood where none is given

    Returns:
        The settings, and what of them goes into the configuration, parts as names and options.
    """
    choices = Choices("train", argv)
    add_common(choices, batch_size=128)
    add = choices.parser.add_argument
    add("--epochs", type=PositiveInt, default=150, help="passes over the training data, at most")
    add("--patience", type=PositiveInt, default=20, help="epochs without a better validation bound")
    add("--learning-rate", type=PositiveFloat, default=1e-3, help="of Adam")
    add("--particles", type=PositiveInt, default=1000, help="draws for the log-likelihood")
    add(
        "--compile",
        action=ActionYesNo,
        nargs="?",
        default=False,
        help="compile the training step: seconds once, less a step",
    )
    add("--precision", choices=tuple(PRECISIONS), default="float32", help="of the layers; all else is in float32")
    add("--label", type=str | None, help="column of a table that holds the classes, for --program SemiSupervised")
    add("--labels", type=PositiveInt | None, help="how many training data keep their label; all by default")
    add("--resume", action="store_true", help="go on with the run of --run-dir, whose configuration holds")
    for axis in run.AXES:
        choices.add(axis, run.shelves()[axis], {**DEFAULTS, "likelihood": likelihood}[axis])
    choices.add("program", run.shelves()["program"], "VAE")
    rates, parts = run.shelves()["rate"], [*run.AXES, "program"]
    if choices.take("lr-factor")[0] is None:
        among = ", ".join(sorted(rates))
        add("--lr-factor", help=f"schedule that the learning rate is multiplied by: one of {among}; none by default")
    else:
        choices.add("lr-factor", rates, None)
        parts.append("lr_factor")
    settings = read(choices)
    config = {k: v for k, v in vars(settings).items() if k not in {*BESIDE, *parts}}
    return settings, {**config, **{part: choices.describe(part, settings) for part in parts}}


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
    units = evaluation.latents(vae, x, progress=not settings.quiet)
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
        f"{found.mean:10.2f}  {found.std_error:10.2f}   importance sampling, {found.num_particles:,} particles, "
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
        means = posterior_means(vae, split.x)
    latent = {"latent": plots.latent_map(means, split.y)}
    if hasattr(vae.likelihood, "columns"):  # in units of their own
        return latent
    draw = plots.vectors
    if plots.is_image(x.shape[1:]):
        draw = partial(plots.image_grid, rows=5)
    return {
        "reconstructions": plots.reconstructions(x, x_hat, title="Test data and reconstructions"),
        "samples": draw(samples, title=f"Samples: means of p(x|z), {name}, at draws z of the prior"),
        **latent,
    }
