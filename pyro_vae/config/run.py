"""The run folder: a program described by names and numbers, written to config.json and built again from it.

A configuration holds no code and no import path. The command builds its parts with the same functions, so that
``pyro_vae.load`` returns exactly what was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyro_vae._util.atomic_files import write_file
from pyro_vae._util.versions import VERSION
from pyro_vae.config.parts import build, check, required, resolve, shelves, split
from pyro_vae.config.types import check_options
from pyro_vae.data.tables import Column
from pyro_vae.training.checkpoint.run_folder import CONFIG, SCHEMA, read_config

__all__ = [
    "AXES",
    "columns",
    "describe",
    "plain",
    "read",
    "read_any",
    "takes_labels",
    "write",
]

#: The four axes; a prior may need the posterior, which is built first.
AXES = ("posterior", "likelihood", "prior", "estimator")

#: Types of the plain entries of a configuration.
TYPES = {
    **dict.fromkeys(
        ("latent", "seed", "epochs", "patience", "batch_size", "num_particles", "num_examples", "steps", "inputs"), int
    ),
    **dict.fromkeys(("binarize", "label", "layout", "key", "purpose"), str | None),
    **dict.fromkeys(("levels", "size"), int | None),
    **dict.fromkeys(("counts", "keep_empty", "keep_index"), bool),
    "units": list,
    **dict.fromkeys(("data", "device", "precision"), str),
    "num_labels": int | None,
    "learning_rate": float,
    "compile": bool,
    "shape": list[int],
    "columns": list,
    "classes": list,
    "types": dict | None,
    **dict.fromkeys(("leave_out", "covariates"), list | None),
    "context": list,
}

#: The program of a configuration without one.
DEFAULT_PROGRAM = {"name": "VAE", "options": {"missing": False}}


def takes_labels(config: Mapping[str, Any]) -> bool:
    """Return whether the program of a configuration has a classifier that learns from labels."""
    name = config.get("program", DEFAULT_PROGRAM)["name"]
    return not {"classifier", "top"}.isdisjoint(required(resolve("program", name, shelves()["program"])))


def describe(table: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the columns of a table as names and plain values; :func:`columns` is the inverse.

    Example:
        >>> from pyro_vae.data.tables import Count
        >>> describe([Count("visits", 4.0)])
        [{'name': 'Count', 'options': {'name': 'visits', 'scale': 4.0}}]
    """
    found = []
    for column in table:
        options = column.options
        if "cells" in options:
            options["cells"] = {"name": type(column.cells).__name__, "options": asdict(column.cells)}
        found.append({"name": type(column).__name__, "options": options})
    return found


def columns(config: Mapping[str, Any], key: str = "columns") -> tuple[Column, ...]:
    """Build the columns of the table that a run was trained on; empty if it was not a table."""
    found, tables = [], shelves()
    for spec in config.get(key, ()):
        name, options = split("columns", spec)
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        found.append(build("column", {"name": name, "options": options}, tables))
    return tuple(found)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as it will be after a round trip through JSON: tuples become lists."""
    return json.loads(json.dumps(config, allow_nan=False))


def write(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Create the folder of a run, which must be unused, and write its configuration: JSON values only."""
    text = json.dumps({"schema": SCHEMA, "pyro_vae": VERSION, **config}, indent=2, allow_nan=False)
    check_unused(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_file(run_dir / "config.json", f"{text}\n".encode())


def check_unused(run_dir: Path) -> None:
    """Raise if the folder holds a run, or cannot hold one."""
    for path in (run_dir, *run_dir.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"run_dir: expected a folder, but {path} is a file. Name another folder")
    if (run_dir / "config.json").exists():
        raise ValueError(
            f"run_dir: expected an unused folder, but {run_dir} already holds a run (config.json). Name another "
            "folder, or remove this one"
        )


def read(run_dir: str | Path) -> dict[str, Any]:
    """Return the configuration of a run of ``pyro-vae train``, after a check of its names and types.

    Raises:
        ValueError: there is none, it is incomplete or damaged, or a newer version wrote it.
    """
    config = read_any(run_dir)
    if "fit" in config:
        raise ValueError(
            f"run_dir: expected a run of `pyro-vae train`, got one of pyro_vae.fit in {run_dir}, which a command "
            "cannot use. Load it in Python by pyro_vae.load"
        )
    return config


def read_any(run_dir: str | Path) -> dict[str, Any]:
    """Return the configuration of a run of ``pyro-vae train`` or, under ``fit``, the settings of a run of ``fit``.

    Raises:
        ValueError: as for :func:`read`.
    """
    path = Path(run_dir) / CONFIG
    if not path.is_file():
        raise ValueError(f"run_dir: expected the folder of a run, but there is no {CONFIG} in {run_dir}")
    config = read_config(path)
    try:
        return config if "fit" in config else checked(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of ``pyro-vae train``, with the default program if it has none.

    Raises:
        ValueError: an entry is missing, a name is unknown, or a value has the wrong type.
    """
    missing = [key for key in ("latent", "shape", "seed", *AXES) if key not in config]
    if missing:
        raise ValueError(f"expected a complete configuration, but {', '.join(missing)} is missing")
    config.setdefault("program", DEFAULT_PROGRAM)
    check_options("", TYPES, config)
    tables = shelves()
    for axis in (*AXES, "program", *(["lr_schedule"] if config.get("lr_schedule") else [])):
        check(axis, config[axis], tables[axis])
    for i, column in enumerate(config.get("columns", ())):
        check(f"columns[{i}]", column, tables["column"])
    return config
