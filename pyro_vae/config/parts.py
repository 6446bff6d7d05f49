"""The parts of a run by name: which names exist, and objects built from names and plain values.

A part is described by ``{"name": ..., "options": {...}}``. A name is looked up on the shelf of its kind and nowhere
else: no import path and no code is followed.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType, ModuleType
from typing import Any, get_origin

from torch import nn

from pyro_vae import estimators, likelihoods, nets, posteriors, priors, programs, scales
from pyro_vae._util.validation import nearest
from pyro_vae.conditional import Conditional
from pyro_vae.config.types import check_options
from pyro_vae.data import tables
from pyro_vae.data.tables import Cells, Column
from pyro_vae.estimators import Estimator, penalties
from pyro_vae.programs import Program
from pyro_vae.programs.inference import Inference
from pyro_vae.training import schedules

__all__ = [
    "NESTED",
    "arguments",
    "build",
    "check",
    "hints",
    "required",
    "resolve",
    "revive",
    "shelf",
    "shelves",
    "split",
]

#: Kinds of objects that an option may name. Parts call the first two themselves, so they get a factory.
FACTORIES = ("network", "activation")
NESTED = (*FACTORIES, "scale", "penalty", "schedule", "cells", "inference")
#: Types of arguments of programs that a configuration has as plain values.
PLAIN = {"layers": list[int], "summary": int}


def shelves() -> Mapping[str, Mapping[str, type]]:
    """Return all classes that a configuration or the command line may name, by kind and name.

    Example:
        >>> shelves()["posterior"]["MeanFieldNormal"].__name__
        'MeanFieldNormal'
    """
    activations = shelf(nn.modules.activation, nn.Module)
    found = {
        "prior": shelf(priors, Conditional),
        "likelihood": shelf(likelihoods, Conditional),
        "posterior": shelf(posteriors, Conditional),
        "estimator": shelf(estimators, Estimator),
        "network": shelf(nets, nets.Net),
        "activation": {name: cls for name, cls in activations.items() if not required(cls)},
        "scale": shelf(scales, nn.Module),
        "penalty": {name: cls for name, cls in vars(penalties).items() if name in estimators.__all__},
        "schedule": schedules.BETA,
        "lr_schedule": schedules.LEARNING_RATE,
        "program": shelf(programs, Program),
        "column": shelf(tables, Column),
        "cells": shelf(tables, Cells),
        "inference": shelf(programs, Inference),
    }
    return MappingProxyType({kind: MappingProxyType(classes) for kind, classes in found.items()})


def shelf(module: ModuleType, base: type) -> dict[str, type]:
    """Return the subclasses of ``base`` that ``module`` exports, without abstract classes and ``base`` itself."""
    exported = {name: getattr(module, name) for name in module.__all__}
    return {
        name: found
        for name, found in exported.items()
        # Python 3.10 takes tuple[int, ...] for a class
        if inspect.isclass(found) and not get_origin(found) and issubclass(found, base)
        if found is not base and not inspect.isabstract(found)
    }


# cached: a command line reads the arguments of all parts many times
@cache
def arguments(cls: type) -> Mapping[str, tuple[inspect.Parameter, Any]]:
    """Return parameter and type hint of each constructor argument, including those passed on by ``**options``."""
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


def hints(cls: type) -> dict[str, Any]:
    """Return the type hint of each constructor argument."""
    return {name: hint for name, (_, hint) in arguments(cls).items()}


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
        ValueError: there is no such entry; the message has the nearest name.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    raise ValueError(f"{what}: expected one of {', '.join(sorted(table))}, got {name}{nearest(str(name), table)}")


def build(kind: str, spec: Any, tables: Mapping[str, Any] | None = None, /, **given: Any) -> Any:
    """Build an object from its description.

    Args:
        kind: a key of :func:`shelves`, such as ``"prior"``
        spec: ``{"name": ..., "options": {...}}``, as in config.json
        tables: the result of :func:`shelves`, for many objects
        given: values for required arguments and for ``context``; each class gets those that it has. ``encoder`` wraps
            the network of a posterior

    Returns:
        The object.

    Raises:
        ValueError: the name is unknown, or the options do not fit the constructor.

    Example:
        >>> net = {"name": "MLP", "options": {"hidden": [16]}}
        >>> spec = {"name": "MeanFieldNormal", "options": {"net": net}}
        >>> build("posterior", spec, shape=(8, 8), latent=3).net.body[0]
        Linear(in_features=64, out_features=16, bias=True)
    """
    tables = shelves() if tables is None else tables
    name, options = split(kind, spec)
    cls = resolve(kind, name, tables[kind])
    needed = required(cls)
    known = {key: v for key, v in given.items() if key in needed or (key == "context" and key in arguments(cls))}
    nested = {key: revive(f"{kind}.{key}", value, tables) for key, value in options.items()}
    if kind == "posterior" and "encoder" in given and "net" in arguments(cls):
        nested["net"] = given["encoder"](nested.get("net", nets.MLP))
    lacking = [key for key in needed if key not in {**known, **nested}]
    if lacking:
        raise ValueError(
            f"{kind}: {name} needs {', '.join(lacking)}, which cannot be built from a configuration and these data. "
            "Choose another one, or build it in Python and train it with pyro_vae.fit"
        )
    try:
        return cls(**known, **nested)
    except TypeError as error:
        raise ValueError(f"{kind}: cannot build {name} with {options}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{kind}: {error}") from error


def revive(what: str, value: Any, tables: Mapping[str, Mapping[str, type]]) -> Any:
    """Return a plain value unchanged, and the object or factory for ``{"name": ..., "options": {...}}``."""
    if not isinstance(value, dict):
        return value
    name, options = split(what, value)
    cls = resolve(what, name, nested(what, tables))
    make = partial(cls, **{n: revive(f"{what}.{n}", v, tables) for n, v in options.items()})
    return make if any(cls is tables[kind].get(name) for kind in FACTORIES) else make()


def nested(what: str, tables: Mapping[str, Mapping[str, type]]) -> dict[str, type]:
    """Return the classes that an option may name."""
    # only beta takes a schedule, one of which has the name of an activation
    kinds = ["schedule"] if what.endswith(".beta") else [kind for kind in NESTED if kind != "schedule"]
    return {name: cls for kind in kinds for name, cls in tables[kind].items()}


def check(what: str, spec: Any, table: Mapping[str, type]) -> None:
    """Raise unless a description names a class of a table, and its plain options have the types that the class takes.

    Raises:
        ValueError: the message has the path of the option, such as ``posterior.net.hidden``.
    """
    name, options = split(what, spec)
    cls = resolve(what, name, table)
    check_options(what, hints(cls) | (PLAIN if what == "program" else {}), options)
    for key, value in options.items():
        if isinstance(value, dict):
            check(f"{what}.{key}", value, nested(f"{what}.{key}", shelves()))


def split(what: str, spec: Any) -> tuple[Any, dict[str, Any]]:
    """Return name and options of a description, or raise a ValueError if it is not one."""
    if not isinstance(spec, dict) or set(spec) != {"name", "options"}:
        raise ValueError(f'{what}: expected {{"name": ..., "options": {{...}}}}, got {spec!r}')
    if not isinstance(spec["options"], dict):
        raise ValueError(f"{what}.options: expected an object, got {spec['options']!r}")
    return spec["name"], spec["options"]
