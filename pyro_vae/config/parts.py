"""The parts of a program by their names: what a name may mean, and parts built from names and plain values.

Each part is described by ``{"name": ..., "options": {...}}``, and a name means what the shelf of that part says and
nothing else: no import path, no code.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache, partial
from types import MappingProxyType, ModuleType
from typing import Any, get_origin

from torch import nn

from pyro_vae import estimators, likelihoods, nets, posteriors, priors, scales
from pyro_vae.conditional import Conditional
from pyro_vae.data import tables
from pyro_vae.data.tables import Column
from pyro_vae.estimators import Estimator
from pyro_vae.programs import VAE, MissingNotAtRandom, SemiSupervised
from pyro_vae.training import schedules

__all__ = ["NESTED", "arguments", "build", "required", "resolve", "shelf", "shelves", "split"]

#: What an option may name, beside plain values. Parts call the first two themselves, so they get a maker.
MADE_BY_PARTS = ("network", "activation")
NESTED = (*MADE_BY_PARTS, "scale", "schedule")

#: Programs that are made of one part of each kind.
PROGRAMS = (VAE, MissingNotAtRandom, SemiSupervised)


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
        "schedule": schedules.BETA,
        "rate": schedules.LEARNING_RATE,
        "program": {cls.__name__: cls for cls in PROGRAMS},
        "column": shelf(tables, Column),
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


# kept: one command line asks for those of all parts of all shelves again and again
@cache
def arguments(cls: type) -> Mapping[str, tuple[inspect.Parameter, Any]]:
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
    return MappingProxyType(found)


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
        axis: a name of :func:`shelves`, such as ``"prior"``
        spec: ``{"name": ..., "options": {...}}``, as in config.json
        given: values for required arguments and ``context``, of which the part takes those it asks for; ``encoder``
            is put round the network of a posterior

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
    taken = arguments(cls)
    asked = {*required(cls), *{"context"}.intersection(taken)}
    known = {name: value for name, value in given.items() if name in asked}
    nested = {name: revive(f"{axis}.{name}", value, tables) for name, value in options.items()}
    if axis == "posterior" and "encoder" in given and "net" in taken:
        nested["net"] = given["encoder"](nested.get("net", nets.MLP))
    lacking = [name for name in required(cls) if name not in {**known, **nested}]
    if lacking:
        raise ValueError(f"{axis}: {name} needs {', '.join(lacking)}, which this run does not have: choose another")
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
