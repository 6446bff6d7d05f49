"""What has to be the same for a resumed run to end as the uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import Program
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.svi import SVI

__all__ = ["check_settings", "check_weights", "settings_of"]


def settings_of(svi: SVI, batches: Batches, held_out: Batches | None) -> dict[str, Any]:
    """Return the settings of a run by name, as plain values."""
    found = {
        "program": type(svi.program).__name__,
        "estimator": type(svi.estimator).__name__,
        "optimizer": type(svi.optim.torch).__name__,
        "clip_norm": svi.optim.clip_norm,
        "compile": svi.compiler is not None,
        "precision": None if isinstance(svi.precision, nullcontext) else repr(svi.precision),
        "skip_nonfinite": svi.skip_nonfinite,
        "batch_size": batches.batch_size,
        "seed": batches.seed,
        "data": described(batches),
        "valid": None if held_out is None else described(held_out),
    }
    options = {f"optimizer {name}": value for name, value in svi.optim.torch.defaults.items()}
    options["lr_factor"] = svi.optim.lr_factor
    if isinstance(svi.estimator, Estimator):
        # the step moves, and stands elsewhere
        moving = ("step", "read")
        options |= {f"estimator {name}": value for name, value in vars(svi.estimator).items() if name not in moving}
    # a schedule is told by its numbers
    told = {name: repr(value) if is_dataclass(value) else value for name, value in options.items()}
    return found | {name: value for name, value in told.items() if is_plain(value)}


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a string, None or a tuple of these."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def described(batches: Batches) -> str:
    """Return number, shape and type of the data in words."""
    if batches.loader is not None:
        return f"a loader of {len(batches)} data"
    with fork_rng(batches.device):
        parts = next(batches.take([np.arange(1)]))
    return f"{len(batches)} rows of " + " and ".join(f"{tuple(x.shape[1:])} {x.dtype}" for x in parts)


def check_settings(settings: Mapping[str, Any], saved: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with other settings than those of a checkpoint.

    Raises:
        ValueError: it names each setting that differs.
    """
    names = [name for name in {**saved, **settings} if saved.get(name) != settings.get(name)]
    if names:
        told = ", ".join(f"{name} {saved.get(name)} (now {settings.get(name)})" for name in names)
        raise ValueError(
            f"resume: {path} was written with {told}; go on with the same settings, or train anew in another folder"
        )


def check_weights(program: Program, saved: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights of another program.

    Raises:
        ValueError: it names what is missing, what the program does not know, and what has another shape or type.
    """
    own = program.state_dict()
    faults = {
        "missing": sorted(own.keys() - saved.keys()),
        "unknown": sorted(saved.keys() - own.keys()),
        "of another shape or type": [
            f"{name} {tuple(saved[name].shape)} {saved[name].dtype} (now {tuple(value.shape)} {value.dtype})"
            for name, value in own.items()
            if name in saved and (saved[name].shape, saved[name].dtype) != (value.shape, value.dtype)
        ],
    }
    told = "; ".join(f"{what}: {', '.join(names)}" for what, names in faults.items() if names)
    if told:
        raise ValueError(f"resume: {path} holds the weights of another program; {told}")
