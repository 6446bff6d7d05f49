"""``pyro-vae train --resume``: the saved configuration is used, and the command line must not contradict it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_vae.cli.choices import UsageError
from pyro_vae.config import run
from pyro_vae.training.checkpoint.run_folder import RunFolder

#: Settings of ``train`` that are not part of the configuration.
NOT_SAVED = {"run_dir", "quiet", "resume", "missing"}


def resumed(
    folder: Path,
    settings: Namespace,
    argv: list[str],
    parse: Callable[[list[str], str], tuple[Namespace, dict[str, Any]]],
) -> tuple[Namespace, dict[str, Any] | None]:
    """Return settings and configuration of the run to resume, or without ``--resume`` the given settings and None.

    ``parse`` parses a command line, given the name of the default likelihood.

    Raises:
        UsageError: the folder holds no run, or an option of the command line contradicts the saved configuration.
        ValueError: there is a run but no ``--resume``, or its configuration is damaged.
    """
    if not settings.resume:
        run.check_unused(folder)
        return settings, None
    if settings.run_dir is None:
        raise UsageError("resume: expected the folder of the run in --run-dir, got none")
    if not (folder / "config.json").exists():
        raise UsageError(
            f"resume: expected the folder of a run in --run-dir, got {folder}, which holds none. Name the folder of "
            "the run, or leave --resume out to start a new run"
        )
    if not RunFolder(folder, keep=1).holds_run:
        print(f"resume: {folder} holds no checkpoint, so its run starts again from its configuration", file=sys.stderr)
    saved = run.read(folder)
    likelihood = saved["likelihood"]["name"]
    given = run.plain(parse(argv, likelihood)[1])
    for option in (arg[2:].partition("=")[0] for arg in argv if arg.startswith("--")):
        key = {"columns": "types", "missing": "program.missing"}.get(option, option.replace("-", "_"))
        if option == "missing" and "missing" not in saved["program"]["options"]:
            continue  # a program with a model of the missing entries
        if key not in NOT_SAVED and chosen(given, key) != chosen(saved, key):
            raise UsageError(
                f"{option}: expected {chosen(saved, key)}, as in the run in {folder}, got {chosen(given, key)}. Leave "
                "the option out to resume, or name another folder for a new run"
            )
    # the parser checks the saved values, as anybody may have edited the file
    named = {*run.AXES, "program", "lr_schedule", "types", "leave_out", "covariates"}
    values = {key: saved[key] for key in given if key not in named and saved.get(key) is not None}
    again = [f"--{key.replace('_', '-')}={value}" for key, value in values.items()]
    return parse([*argv, *again], likelihood)[0], saved


def chosen(config: Mapping[str, Any], option: str) -> Any:
    """Return the value of an option in a configuration: the name of a part, a plain value, or None.

    Example:
        >>> net = {"name": "MLP", "options": {"hidden": [16]}}
        >>> config = {"latent": 3, "posterior": {"name": "MeanFieldNormal", "options": {"net": net}}}
        >>> [chosen(config, option) for option in ("latent", "posterior", "posterior.net.hidden", "posterior.rank")]
        [3, 'MeanFieldNormal', [16], None]
    """
    first, *rest = option.split(".")
    found = config.get(first)
    for name in rest:
        found = found["options"].get(name) if is_spec(found) else None
    return found["name"] if is_spec(found) else found


def is_spec(value: Any) -> bool:
    """Return whether a value describes a part."""
    return isinstance(value, dict) and set(value) == {"name", "options"} and isinstance(value["options"], dict)
