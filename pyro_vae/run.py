"""The run folder: what was trained, written as names and numbers, and built again from them.

A configuration holds no code and no import path. Each part is ``{"name": ..., "options": {...}}``, and a
name means what the shelf of that part says and nothing else. The command builds its parts by the same
functions, so that :func:`load` gives exactly what was trained.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from torch import nn

import pyro_vae
from pyro_vae import estimators, likelihoods, nets, posteriors, priors, scales
from pyro_vae.conditional import Conditional
from pyro_vae.estimators import Estimator
from pyro_vae.programs import VAE
from pyro_vae.rng import fork_rng
from pyro_vae.training import durable, schedules
from pyro_vae.training.weights import read_weights

__all__ = ["build", "load", "program", "read", "required", "resolve", "shelves", "write"]

#: Of the layout of config.json; a reader refuses a higher one.
SCHEMA = 1

#: The four axes; a prior may need the posterior, so that is built first.
AXES = ("posterior", "likelihood", "prior", "estimator")

#: What an option may name, beside plain values. Parts call the first two themselves, so they get a maker.
MADE_BY_PARTS = ("network", "activation")
NESTED = (*MADE_BY_PARTS, "scale", "schedule")


def shelves() -> dict[str, dict[str, type]]:
    """Return every name that a configuration or the command line may use, by kind, read off the package.

    Example:
        >>> shelves()["posterior"]["MeanFieldNormal"].__name__
        'MeanFieldNormal'
    """
    return {
        "prior": shelf(priors, Conditional),
        "likelihood": shelf(likelihoods, Conditional),
        "posterior": shelf(posteriors, Conditional),
        "estimator": shelf(estimators, Estimator),
        "network": shelf(nets, nets.Net),
        "activation": {
            name: found for name, found in shelf(nn.modules.activation, nn.Module).items() if not required(found)
        },
        "scale": shelf(scales, nn.Module),
        "schedule": shelf(schedules, object),
    }


def shelf(module: ModuleType, base: type) -> dict[str, type]:
    """Return the classes that ``module`` exports and that are kinds of ``base``, without bases."""
    exported = {name: getattr(module, name) for name in module.__all__}
    return {
        name: found
        for name, found in exported.items()
        if is_class(found) and issubclass(found, base) and found is not base and not inspect.isabstract(found)
    }


def is_class(found: Any) -> bool:
    """Whether an exported name is a class: Python 3.10 takes tuple[int, ...] for one."""
    return inspect.isclass(found) and not get_origin(found)


def arguments(cls: type) -> dict[str, tuple[inspect.Parameter, Any]]:
    """Return parameter and type hint of each argument, those that ``**options`` hands on to a base class too."""
    found: dict[str, tuple[inspect.Parameter, Any]] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        own = dict(inspect.signature(base.__init__).parameters)
        own.pop("self", None)
        hints = typing.get_type_hints(base.__init__)
        found = {name: (p, hints.get(name)) for name, p in own.items()} | found
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    return found


def required(cls: type) -> list[str]:
    """Return the names of the arguments without a default."""
    return [
        name
        for name, (p, _) in arguments(cls).items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def resolve(what: str, name: Any, table: Mapping[str, Any]) -> Any:
    """Return the entry of ``table`` under ``name``.

    Raises:
        ValueError: it says what was expected, what came, and the nearest name.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    lower = {known.lower(): known for known in table}
    near = get_close_matches(str(name).lower(), lower, n=1)
    hint = f" (did you mean {lower[near[0]]}?)" if near else ""
    raise ValueError(f"{what}: expected one of {', '.join(sorted(table))}, got {name}{hint}")


def build(axis: str, spec: Any, **given: Any) -> Any:
    """Build a part or an estimator from its description.

    Args:
        axis: ``"prior"``, ``"likelihood"``, ``"posterior"`` or ``"estimator"``
        spec: ``{"name": ..., "options": {...}}``, as in config.json
        given: values for required arguments, of which the part takes those it asks for

    Returns:
        The object.

    Raises:
        ValueError: the name is not on the shelf, or the options do not fit its constructor.

    Example:
        >>> net = {"name": "MLP", "options": {"hidden": [16]}}
        >>> spec = {"name": "MeanFieldNormal", "options": {"net": net}}
        >>> build("posterior", spec, shape=(8, 8), latent=3).net.body[0]
        Linear(in_features=64, out_features=16, bias=True)
    """
    tables = shelves()
    name, options = split(axis, spec)
    cls = resolve(axis, name, tables[axis])
    known = {name: value for name, value in given.items() if name in required(cls)}
    nested = {name: revive(f"{axis}.{name}", value, tables) for name, value in options.items()}
    try:
        return cls(**known, **nested)
    except TypeError as error:
        raise ValueError(f"{axis}: cannot build {name} with {options}: {error}") from error


def revive(what: str, value: Any, tables: dict[str, dict[str, type]]) -> Any:
    """Return a plain value as it is, and make what ``{"name": ..., "options": {...}}`` stands for."""
    if not isinstance(value, dict):
        return value
    name, options = split(what, value)
    # only beta takes a schedule, one of which has the name of an activation
    kinds = ["schedule"] if what.endswith(".beta") else [kind for kind in NESTED if kind != "schedule"]
    cls = resolve(what, name, {n: c for kind in kinds for n, c in tables[kind].items()})
    make = partial(cls, **{n: revive(f"{what}.{n}", v, tables) for n, v in options.items()})
    return make if any(name in tables[kind] for kind in kinds if kind in MADE_BY_PARTS) else make()


def split(what: str, spec: Any) -> tuple[Any, dict[str, Any]]:
    """Return name and options of a description, or say that it is none."""
    if not isinstance(spec, dict) or set(spec) != {"name", "options"}:
        raise ValueError(f'{what}: expected {{"name": ..., "options": {{...}}}}, got {spec!r}')
    if not isinstance(spec["options"], dict):
        raise ValueError(f"{what}.options: expected an object, got {spec['options']!r}")
    return spec["name"], spec["options"]


def program(config: Mapping[str, Any]) -> VAE:
    """Build the program of a configuration, its weights drawn from ``config["seed"]``.

    Args:
        config: ``latent``, ``shape``, ``seed``, ``posterior``, ``likelihood`` and ``prior``

    Returns:
        The program, untrained, on the CPU.

    Raises:
        ValueError: a name is not on its shelf, or options do not fit.
    """
    given: dict[str, Any] = {"latent": config["latent"], "shape": tuple(config["shape"])}
    with fork_rng(seed=config["seed"]):
        for axis in ("posterior", "likelihood", "prior"):
            given[axis] = build(axis, config[axis], **given)
    return VAE(prior=given["prior"], likelihood=given["likelihood"], posterior=given["posterior"])


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as it will be when it is read from a file: tuples as lists."""
    return json.loads(json.dumps(config, allow_nan=False))


def write(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Make the folder of a run and write its configuration.

    Args:
        run_dir: the folder, which must not hold a run yet
        config: what :func:`program` takes, and whatever else is to be kept; JSON values only

    Raises:
        ValueError: the folder holds a run.
    """
    versions = {"schema": SCHEMA, "pyro_vae": pyro_vae.__version__}
    text = json.dumps({**versions, **config}, indent=2, allow_nan=False)
    refuse_used(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    durable.replace(run_dir / "config.json", f"{text}\n".encode())


def refuse_used(run_dir: Path) -> None:
    """Raise an error if the folder holds a run."""
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
            f"{path}: schema {schema} is newer than {SCHEMA}, which pyro_vae {pyro_vae.__version__} reads: "
            "update pyro_vae"
        )
    missing = [key for key in ("latent", "shape", "seed", *AXES) if key not in config]
    if missing:
        raise ValueError(f"{path}: not whole, {', '.join(missing)} missing")
    tables = shelves()
    for axis in AXES:
        resolve(axis, split(axis, config[axis])[0], tables[axis])
    return config


def load(run_dir: str | Path) -> VAE:
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
