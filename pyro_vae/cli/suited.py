"""Options of ``pyro-vae train`` that suit the kind and the size of the data."""

from __future__ import annotations

import math
from typing import Any

from pyro_vae.config import data as run_data
from pyro_vae.config import run
from pyro_vae.training import ImputationDefaults, TableDefaults

__all__ = ["TABLE_RATE", "options_of_kind", "options_of_size"]

#: Hidden layers and learning rate for tables: few large steps that become smaller, of which held-out rows choose the
#: best epoch.
TABLE_HIDDEN, TABLE_RATE = [128, 128], 1e-2
#: Hidden layers of networks for sequences, whose steps pass them one after the other, and sequences per batch.
SEQUENCE_HIDDEN, SEQUENCES = [64], 32


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
    if source.kind == "sequences":
        nets = [part for part in ("posterior", "likelihood") if is_mlp(config, part)]
        hidden = [f"--{part}.net.hidden={SEQUENCE_HIDDEN}" for part in nets]
        return [f"--batch-size={SEQUENCES}", f"--learning-rate={TABLE_RATE}", *hidden]
    real = source.kind in ("real", "real columns", "mixed") and len(source.dataset.shape) == 1
    labels = run.takes_labels(config)
    if not real or not run_data.is_file(config["data"]) or not (labels or config["program"]["name"] == "VAE"):
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
        if is_mlp(config, part):
            options.append(f"--{part}.net.hidden={list(sizes.hidden) if missing else TABLE_HIDDEN}")
            # a network learns slowly what is linear: correlations of columns, and the border between two classes
            if part == ("posterior" if labels else "likelihood") and (labels or missing):
                options.append(f"--{part}.net.linear=true")
    return [*options, f"--latent={sizes.latent}", f"--patience={max(20, epochs // 4)}"] if missing else options


def is_mlp(config: dict[str, Any], part: str) -> bool:
    """Return whether a part has the network MLP."""
    return (config[part]["options"].get("net") or {}).get("name") == "MLP"
