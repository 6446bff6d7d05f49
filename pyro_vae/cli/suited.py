"""Options of ``pyro-vae train`` that suit the kind and the size of the data."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

from pyro_vae.cli.choices import UsageError
from pyro_vae.config import data as run_data
from pyro_vae.config import run
from pyro_vae.training import PURPOSES

__all__ = ["SEQUENCE_RATE", "named", "options_of_kind", "options_of_size"]

#: Hidden layers of networks for sequences, whose steps pass them one after the other, sequences per batch, and the
#: learning rate.
SEQUENCE_HIDDEN, SEQUENCES, SEQUENCE_RATE = [64], 32, 1e-2
#: Passes over the training data where there are many rows, so that each pass has many steps.
MANY, PASSES = 5000, 60


def options_of_kind(argv: list[str], source: run_data.Source) -> list[str]:
    """Return the program that suits the kind of the data, unless the user chose one, and what holes need."""
    given = {arg.partition("=")[0] for arg in argv}
    if source.kind == "sequences":
        found = [] if "--program" in given else ["--program=SequenceVAE"]
        return [*found, *["--missing"] * (source.holes and "--missing" not in given)]
    # an encoder that sees the logarithms of counts, and a decoder that knows their total
    counts = source.kind == "sparse counts" and given.isdisjoint({"--program", "--likelihood"})
    return ["--program=CountVAE"] if counts else []


def options_of_size(argv: list[str], config: dict[str, Any], source: run_data.Source) -> list[str]:
    """Return the default options for a table or sequences; those of the user come after them and win."""
    purpose = config["purpose"]
    if source.kind == "sequences" and not purpose:
        nets = [part for part in ("posterior", "likelihood") if is_mlp(config, part)]
        hidden = [f"--{part}.net.hidden={SEQUENCE_HIDDEN}" for part in nets]
        return [f"--batch-size={SEQUENCES}", f"--learning-rate={SEQUENCE_RATE}", *hidden]
    real = source.kind in ("real", "real columns", "mixed") and len(source.dataset.shape) == 1
    labels = run.takes_labels(config)
    if not real or not run_data.is_file(config["data"]) or not (labels or config["program"]["name"] == "VAE"):
        if purpose:
            raise UsageError(f"purpose: expected a VAE of a table of numbers or labels in a file, got {source.kind}")
        return [f"--epochs={PASSES}"] if len(source.dataset.train) >= MANY else []
    given = {arg.partition("=")[0] for arg in argv}
    rows, batch_size, (columns,) = len(source.dataset.train), config["batch_size"], source.dataset.shape
    purpose = purpose or ("imputation" if config["program"]["options"].get("missing") else "density")
    sizes = PURPOSES[purpose](rows=rows, columns=columns)
    epochs = config["epochs"] if "--epochs" in given else sizes.epochs(batch_size)
    options = [f"--purpose={purpose}", f"--epochs={epochs}", f"--patience={sizes.patience(epochs)}"]
    options += [f"--latent={sizes.latent}", f"--learning-rate={sizes.learning_rate}"]
    if sizes.decays and not given & {"--lr-schedule", "--learning-rate"}:
        options += ["--lr-schedule=Cosine", f"--lr-schedule.num_steps={epochs * math.ceil(rows / batch_size)}"]
    options += [each for axis, part in sizes.parts.items() if f"--{axis}" not in given for each in named(axis, part)]
    for part in ("posterior", "likelihood", "prior"):
        if is_mlp(config, part):
            hidden = sizes.classifier if labels and part == "posterior" else sizes.hidden
            options.append(f"--{part}.net.hidden={list(hidden)}")
            # a network learns slowly what is linear: correlations of columns, and the border between two classes
            if part == ("posterior" if labels else "likelihood") and (labels or sizes.linear):
                options.append(f"--{part}.net.linear=true")
    return options


def is_mlp(config: dict[str, Any], part: str) -> bool:
    """Return whether a part has the network MLP."""
    return (config[part]["options"].get("net") or {}).get("name") == "MLP"


def named(axis: str, part: Any) -> list[str]:
    """Return a class, or a partial of one, as the option ``--AXIS=NAME`` and those for its arguments."""
    cls, options = (part.func, part.keywords) if isinstance(part, partial) else (part, {})
    values = {key: getattr(value, "__name__", None) or json.dumps(value) for key, value in options.items()}
    return [f"--{axis}={cls.__name__}", *(f"--{axis}.{key}={value}" for key, value in values.items())]
