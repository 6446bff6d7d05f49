"""``pyro-vae train --resume``: the configuration of the run holds, and the command line may not say otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from pyro_vae.cli.choices import UsageError
from pyro_vae.config import run

__all__ = ["BESIDE", "earlier"]

#: Settings of ``train`` that are no part of the run.
BESIDE = {"run_dir", "quiet", "resume"}


def earlier(
    folder: Path,
    settings: Namespace,
    argv: list[str],
    parse: Callable[[list[str], str], tuple[Namespace, dict[str, Any]]],
) -> tuple[Namespace, dict[str, Any] | None]:
    """Return settings and configuration of the run to go on with; the settings as they are and None for a new run.

    Args:
        folder: of the run
        settings: of the command line
        argv: the command line
        parse: reads a command line, by the name of the likelihood where none is given

    Raises:
        UsageError: an option of the command line says something else than the run.
        ValueError: there is a run but no ``--resume``, or its configuration is damaged.
    """
    if not settings.resume:
        run.refuse_used(folder)
        return settings, None
    if settings.run_dir is None:
        raise UsageError("resume: expected the folder of the run in --run-dir")
    if not (folder / "config.json").exists():
        return settings, None
    saved = run.read(folder)
    likelihood = saved["likelihood"]["name"]
    given = run.plain(parse(argv, likelihood)[1])
    for option in (arg[2:].partition("=")[0] for arg in argv if arg.startswith("--")):
        key = option.replace("-", "_")
        if key not in BESIDE and chosen(given, key) != chosen(saved, key):
            raise UsageError(
                f"{option}: the run in {folder} has {chosen(saved, key)}, got {chosen(given, key)}; "
                "leave it out to go on, or name another folder for a new run"
            )
    # read by the parser, as a configuration may have been written by anybody
    parts = {*run.AXES, "program", "lr_factor"}
    plain = {key: saved[key] for key in given if key not in parts and saved.get(key) is not None}
    again = [f"--{key.replace('_', '-')}={value}" for key, value in plain.items()]
    return parse([*argv, *again], likelihood)[0], saved


def chosen(config: Mapping[str, Any], option: str) -> Any:
    """Return what a configuration says of an option of the command line such as ``posterior.net.hidden``.

    Returns:
        The name of a part, or a plain value; None where the configuration has no such option.

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
    """Whether a value has the form of a description of a part."""
    return isinstance(value, dict) and set(value) == {"name", "options"} and isinstance(value["options"], dict)
