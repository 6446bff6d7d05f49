"""The run folder: what was trained, written as names and numbers, and built again from them.

A configuration holds no code and no import path. Each part is ``{"name": ..., "options": {...}}``, and a
name means what the shelf of that part says and nothing else. The command builds its parts by the same
functions, so that :func:`load` gives exactly what was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pyro_vae._util.atomic_files import write_file
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.versions import VERSION
from pyro_vae.config.parts import NESTED, arguments, build, required, resolve, shelf, shelves, split
from pyro_vae.data.tables import Column, Features
from pyro_vae.nets import ZeroImputed
from pyro_vae.priors import OneHotCategorical
from pyro_vae.programs import Program, SelfMasking
from pyro_vae.training.checkpoint.serialization import read_weights

__all__ = [
    "AXES",
    "NESTED",
    "arguments",
    "build",
    "columns",
    "describe",
    "load",
    "plain",
    "program",
    "read",
    "refuse_used",
    "required",
    "resolve",
    "shelf",
    "shelves",
    "split",
    "write",
]

#: Of the layout of config.json; a reader refuses a higher one. The second knows programs, columns and classes.
SCHEMA = 2

#: The four axes; a prior may need the posterior, so that is built first.
AXES = ("posterior", "likelihood", "prior", "estimator")

#: Of configurations that name none.
PROGRAM = {"name": "VAE", "options": {"missing": False}}


def program(config: Mapping[str, Any]) -> Program:
    """Build the program of a configuration, its weights drawn from ``config["seed"]``.

    The encoder of a table sees its columns as ``columns.Features``, that of other data with missing entries sees
    them as ``missing_nets.ZeroImputed``; the classifier of a semi-supervised program has the network of the posterior.

    Args:
        config: ``latent``, ``shape``, ``seed``, ``posterior``, ``likelihood`` and ``prior``; where they apply
            ``program``, ``columns`` of a table and ``classes``, the labels in the order of their codes

    Returns:
        The program, untrained, on the CPU.

    Raises:
        ValueError: a name is not on its shelf, or options do not fit.
    """
    spec = config.get("program", PROGRAM)
    name, options = split("program", spec)
    needs = required(resolve("program", name, shelves()["program"]))
    given: dict[str, Any] = {"latent": config["latent"], "shape": tuple(config["shape"])}
    if "columns" in config:
        given["columns"] = columns(config)
        given["encoder"] = lambda net: partial(Features, given["columns"], net=net)
    elif options.get("missing") or "mask" in needs:
        given["encoder"] = lambda net: partial(ZeroImputed, net=net)
    if "classifier" in needs and "classes" in config:
        given["context"] = len(config["classes"])
    with fork_rng(seed=config["seed"]):
        for axis in ("posterior", "likelihood", "prior"):
            given[axis] = build(axis, config[axis], **given)
        if "context" in given:
            net = {k: v for k, v in config["posterior"]["options"].items() if k == "net"}
            classes = given.pop("context")
            classifier = {"name": "OneHotCategorical", "options": net}
            given["classifier"] = build("posterior", classifier, **{**given, "latent": classes})
            given["classes"] = OneHotCategorical(classes)
        if "mask" in needs:
            given["mask"] = SelfMasking(given["shape"])
        if "columns" in config:  # Features takes NaN for the mean of a column
            given["posterior"].takes_missing = True
        return build("program", spec, **given)


def describe(table: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the columns of a table as names and plain values, as :func:`columns` reads them.

    Example:
        >>> from pyro_vae.data.tables import Count
        >>> describe([Count("visits", 4.0)])
        [{'name': 'Count', 'options': {'name': 'visits', 'scale': 4.0}}]
    """
    return [{"name": type(column).__name__, "options": asdict(column)} for column in table]


def columns(config: Mapping[str, Any]) -> tuple[Column, ...]:
    """Build the columns of the table that a run was trained on; none where it was no table."""
    return tuple(build("column", tupled(spec)) for spec in config.get("columns", ()))


def tupled(spec: Any) -> dict[str, Any]:
    """Return a description of a column with tuples for lists."""
    name, options = split("columns", spec)
    return {"name": name, "options": {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as it will be when it is read from a file: tuples as lists."""
    return json.loads(json.dumps(config, allow_nan=False))


def write(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Make the folder of a run and write its configuration.

    Args:
        run_dir: the folder, which must not hold a run yet
        config: what :func:`program` takes, and whatever else is to be kept; JSON values only

    Raises:
        ValueError: the folder holds a run, or it is a file.
    """
    versions = {"schema": SCHEMA, "pyro_vae": VERSION}
    text = json.dumps({**versions, **config}, indent=2, allow_nan=False)
    refuse_used(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_file(run_dir / "config.json", f"{text}\n".encode())


def refuse_used(run_dir: Path) -> None:
    """Raise an error if the folder holds a run, or cannot be one."""
    for path in (run_dir, *run_dir.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"run_dir: {path} is a file, expected a folder; name another one")
    if (run_dir / "config.json").exists():
        raise ValueError(
            f"run_dir: {run_dir} already holds a run (config.json); name another folder, or remove this one"
        )


def read(run_dir: str | Path) -> dict[str, Any]:
    """Read the configuration of a run and check what it names.

    Args:
        run_dir: the folder of the run

    Returns:
        The configuration.

    Raises:
        ValueError: there is none, it is not whole, a newer version wrote it, or it names what is on no shelf.
    """
    path = Path(run_dir) / "config.json"
    if not path.is_file():
        raise ValueError(f"run_dir: {run_dir} holds no run: there is no config.json in it")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, but {error}") from error
    schema = config.get("schema") if isinstance(config, dict) else None
    if not isinstance(schema, int) or schema < 1:
        raise ValueError(f"{path}: expected a configuration with a schema number, got {schema!r}")
    if schema > SCHEMA:
        raise ValueError(
            f"{path}: schema {schema} is newer than {SCHEMA}, which pyro_vae {VERSION} reads: update pyro_vae"
        )
    missing = [key for key in ("latent", "shape", "seed", *AXES) if key not in config]
    if missing:
        raise ValueError(f"{path}: not whole, {', '.join(missing)} missing")
    tables = shelves()
    config.setdefault("program", PROGRAM)
    for axis in (*AXES, "program"):
        resolve(axis, split(axis, config[axis])[0], tables[axis])
    return config


def load(run_dir: str | Path) -> Program:
    """Build the program of a run and load its weights.

    Args:
        run_dir: the folder of the run, with ``config.json`` and ``weights.safetensors``

    Returns:
        The program in evaluation mode, on the CPU.

    Raises:
        ValueError: configuration or weights are missing, damaged, of a newer version or of another program, or
            the configuration names something that is on no shelf.

    Example:
        >>> vae = load("runs/a")  # doctest: +SKIP
        >>> vae.sample(16, mean=True).shape  # doctest: +SKIP
        torch.Size([16, 8, 8])
    """
    vae = program(read(run_dir))
    path = Path(run_dir) / "weights.safetensors"
    if not path.is_file():
        raise ValueError(f"run_dir: there are no weights in {run_dir}: weights.safetensors is missing")
    try:
        vae.load_state_dict(read_weights(path), strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: not the weights of this configuration: {error}") from error
    return vae.eval()
