"""The settings of a run that change its result, as plain values which a resumed run must share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pyro_vae._util.code import code_of, qualified
from pyro_vae._util.describe import Described, describe
from pyro_vae._util.differences import differences, not_compared
from pyro_vae._util.shared_parameters import shared_parameters
from pyro_vae.training.callbacks import Callback, Log
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.fingerprint import fingerprint, weights_of
from pyro_vae.training.svi import SVI

__all__ = ["check_settings", "settings_of"]

#: Largest number of differences that a message names.
SHOWN = 8


def settings_of(
    svi: SVI, batches: Batches, held_out: Batches | None, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Return what changes the result of a run, by name: its parts with all of their options, and the data.

    Left out are what only changes the run itself (number of epochs, device, checkpoints, progress bar) and functions
    that are called with the metrics.
    """
    precision = None if isinstance(svi.precision, nullcontext) else svi.precision
    compiler = svi.every_compiler
    return {
        "program": describe(svi.program),
        "shared": shared_parameters(svi.program),
        "frozen": [name for name, p in svi.optim.named.items() if not p.requires_grad],
        "estimator": estimator_of(svi),
        "optimizer": optimizer_of(svi),
        "clip_norm": svi.optim.clip_norm,
        "lr_schedule": describe(svi.optim.lr_schedule),
        "compile": None if compiler is None else getattr(compiler, "__qualname__", type(compiler).__name__),
        "precision": describe(precision),
        "skip_nonfinite": svi.skip_nonfinite,
        "batch_size": batches.batch_size,
        "seed": batches.seed,
        "data": fingerprint(batches),
        "weights": weights_of(batches),
        "valid": None if held_out is None else fingerprint(held_out),
        "callbacks": [describe_callback(callback) for callback in callbacks if not isinstance(callback, Log)],
    }


def estimator_of(svi: SVI) -> dict[str, Any]:
    """Return the description of the estimator."""
    found = describe(svi.estimator)
    if not isinstance(svi.estimator, Described):
        # an estimator of Pyro keeps there what it found out about the model
        found.get("attributes", {}).pop("max_plate_nesting", None)
    return found


def optimizer_of(svi: SVI) -> dict[str, Any]:
    """Return class, options and parameter groups of the optimizer.

    The present learning rate of an optimizer that the user made is part of its state, as a callback may change it.
    """
    optimizer = svi.optim.torch
    names = {id(p): name for name, p in svi.optim.named.items()}
    groups = []
    for group, rate in zip(optimizer.param_groups, svi.optim.learning_rates, strict=True):
        rates = {"lr": rate} if svi.optim.made and rate is not None else {}
        own = {key: v for key, v in group.items() if key not in ("params", "lr", "initial_lr")}
        found = {key: describe(v) for key, v in {**own, **rates}.items()}
        groups.append({"parameters": [names.get(id(p), "") for p in group["params"]], **found})
    options = {key: describe(value) for key, value in optimizer.defaults.items()}
    found = {"name": describe(type(optimizer))["factory"], "options": options}
    # a single group with the options of the optimizer says nothing new
    same = len(groups) == 1 and all(options.get(key) == value for key, value in groups[0].items() if key in options)
    return found if same else {**found, "groups": groups}


def describe_callback(callback: Callback) -> dict[str, Any]:
    """Return the class of a callback and those of its options that change the result."""
    return {"name": qualified(type(callback)), **code_of(type(callback)), "options": callback.settings()}


def check_settings(settings: Mapping[str, Any], saved: Mapping[str, Any], path: Path) -> None:
    """Raise if a run is resumed with other settings than those of its checkpoint; warn of what cannot be compared.

    Raises:
        ValueError: the settings differ; the message names them.
    """
    found = differences({**saved}, {**settings})
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ValueError(
            f"resume: {path} was saved with {', '.join(found[:SHOWN])}{more}. Resume with the same settings, or train "
            "from scratch in another folder"
        )
    unknown = not_compared(settings)
    if unknown:
        warnings.warn(
            f"resume: expected the same settings as before, but cannot compare {', '.join(unknown[:SHOWN])}. Make "
            "sure that they have not changed",
            stacklevel=2,
        )
