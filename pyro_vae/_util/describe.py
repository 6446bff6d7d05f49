"""Plain descriptions of objects: what they were built with, for a resumed run to compare and ``load`` to rebuild."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from numbers import Integral, Real
from pathlib import Path
from types import (
    BuiltinFunctionType,
    FunctionType,
    MappingProxyType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pyro_vae._util.code import (
    checksum,
    code_of,
    function_code,
    globals_of,
    hooks_of,
    is_library,
    qualified,
    variables_of,
)
from pyro_vae._util.differences import join
from pyro_vae._util.validation import check_positional

__all__ = ["Described", "constructor", "describe"]

T = TypeVar("T")

#: Largest depth of nested objects that is described, and number of elements of a tensor of which all are compared.
DEPTH, LARGE = 12, 2**24

#: Types of functions that are written in C.
IN_C = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, np.ufunc)


class Described:
    """A base of classes whose objects remember the arguments that they were built with, as plain values.

    A module among the arguments is described later, by the attribute with the name of the argument. Copies and
    pickles have the description of the original.

    Example:
        >>> class Layer(Described, nn.Module):
        ...     def __init__(self, width, *, bias=True):
        ...         super().__init__()
        >>> describe(Layer(3))["options"]
        {'width': 3, 'bias': True}
    """

    def __new__(cls: type[T], *args: Any, **options: Any) -> T:
        """Describe the arguments, which ``__init__`` checks afterwards."""
        new = super().__new__(cls)  # type: ignore[misc]
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        check_positional(cls.__name__, signature, constructor(cls), args)
        try:
            bound = signature.bind(None, *args, **options)
        except TypeError:  # a copy, which has no arguments and gets the description of the original
            new.__dict__["_arguments"] = {}
            return new
        _, *given = bound.arguments.items()
        described: dict[str, Any] = {}
        for name, value in given:
            variable = bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            described |= {key: Description()(v) for key, v in (value.items() if variable else [(name, value)])}
        new.__dict__["_arguments"] = described
        return new


@cache
def constructor(cls: type) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a constructor by name, including those that it passes on by ``**options``."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        own = dict(list(inspect.signature(base.__init__).parameters.items())[1:])
        found = own | found
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    return MappingProxyType(found)


def describe(value: Any) -> Any:
    """Return a description of any object: plain values in dictionaries and lists.

    Objects have their class as ``name``, their arguments as ``options``, other public attributes as ``attributes``
    and submodules as ``modules``; a module that occurs again is ``{"same": path}``. A user's own function or class has
    its ``code`` as well (bytecode, names and constants), and a function the values that it closes over and its plain
    globals. Weights and buffers are left out, as a checkpoint has them.

    Example:
        >>> describe(partial(nn.Linear, 3, bias=False))
        {'factory': 'torch.Linear', 'args': [3], 'options': {'bias': False}}
    """
    return Description(live=True)(value)


class Description:
    """A function from objects to their descriptions, which remembers the modules that it has described.

    Args:
        live: whether to describe modules as they are now; otherwise they are left to the attributes of their owner
    """

    def __init__(self, *, live: bool = False) -> None:
        self.live = live
        self.places: dict[int, str] = {}
        self.open: list[Any] = []

    def __call__(self, value: Any, path: str = "") -> Any:
        """Return the description of a value at a path."""
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (Tensor, np.ndarray)):
            return self.tensor(torch.as_tensor(value) if array_is_numeric(value) else value)
        if isinstance(value, (np.bool_, Integral)):
            return value.item() if isinstance(value, np.bool_) else int(value)
        if isinstance(value, Real):
            return float(value) if math.isfinite(value) else {"number": repr(float(value))}
        if isinstance(value, (list, tuple)):
            return [self(item, join(path, str(i))) for i, item in enumerate(value)]
        if isinstance(value, AbstractSet):
            return sorted((self(item, path) for item in value), key=repr)
        if isinstance(value, Mapping):
            return {"dict": {str(key): self(item, join(path, str(key))) for key, item in value.items()}}
        if isinstance(value, (torch.dtype, torch.device, Path, Enum)):
            return {"value": str(value)}
        if isinstance(value, ModuleType):  # which a function closes over
            return {"value": value.__name__}
        if isinstance(value, (complex, range, slice, bytes, np.dtype)):
            return {"value": repr(value)}
        if isinstance(value, type):
            return {"factory": qualified(value), **code_of(value)}
        if isinstance(value, nn.Module) and not self.live:
            return {"module": qualified(type(value))}
        if isinstance(value, nn.Module) and id(value) in self.places:
            return {"same": self.places[id(value)]}
        if any(value is one for one in self.open) or len(self.open) > DEPTH:
            return {"name": qualified(type(value))}
        self.open.append(value)
        try:
            return self.compound(value, path)
        finally:
            self.open.pop()

    def compound(self, value: Any, path: str) -> dict[str, Any]:
        """Return the description of a function or object, which may contain others."""
        if isinstance(value, partial):
            inner = {"args": value.args, "options": value.keywords}
            extra = {key: self(v, path) for key, v in inner.items() if v}
            options = {"options": extra["options"]["dict"]} if "options" in extra else {}
            return {**self(value.func, path), **extra, **options}
        if isinstance(value, FunctionType):
            return self.function(value, path)
        if isinstance(value, MethodType):
            return {**self.function(value.__func__, path), "of": self(value.__self__, path)}
        if hasattr(value, "__wrapped__"):  # a function behind a decorator, such as functools.cache
            return {"name": qualified(type(value)), "of": self(value.__wrapped__, path)}
        if isinstance(value, IN_C):
            return {"function": qualified(value)}
        if not (hasattr(value, "__dict__") or is_dataclass(value)):
            return {"not compared": qualified(type(value))}
        self.places[id(value)] = path
        options, live = self.options(value, path)
        if is_dataclass(value) and getattr(value, "__dict__", {}).keys() <= options.keys():
            found = {"options": options} if options else {}  # short for speed: a table has one object per column
            return {"name": qualified(type(value)), **code_of(type(value)), **found}
        state = {n: v for n, v in getattr(value, "__dict__", {}).items() if n[:1] != "_" and n != "training"}
        if isinstance(value, Described) and not isinstance(value, nn.Module):
            # its other attributes may be state, such as the number of steps of an estimator
            state = {n: v for n, v in state.items() if n in options or isinstance(v, nn.Module)}
        attributes = {n: self(v, join(path, n)) for n, v in state.items() if n not in live}
        children = {n: v for n, v in getattr(value, "_modules", {}).items() if v is not None and n not in live}
        constants = {n: value._buffers[n] for n in getattr(value, "_non_persistent_buffers_set", ())}
        parts = {
            "options": options,
            "attributes": {n: v for n, v in attributes.items() if n not in options or options[n] != v},
            "modules": {n: self(v, join(path, n)) for n, v in children.items()},
            "buffers": {n: self(v, join(path, n)) for n, v in sorted(constants.items())},
            "hooks": [self(hook, path) for hook in hooks_of(value)],
        }
        return {"name": qualified(type(value)), **code_of(type(value)), **{k: v for k, v in parts.items() if v}}

    def options(self, value: Any, path: str) -> tuple[dict[str, Any], set[str]]:
        """Return the arguments of an object, defaults included, and the names of those that are modules now."""
        if is_dataclass(value):
            return {f.name: self(getattr(value, f.name), join(path, f.name)) for f in fields(value)}, set()
        if not isinstance(value, Described):
            return {}, set()
        variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        parameters = constructor(type(value)).items()
        defaults = {n: p.default for n, p in parameters if p.default is not p.empty and p.kind not in variable}
        given = value.__dict__.get("_arguments", {})
        names = dict.fromkeys([*(n for n, _ in parameters if n in given or n in defaults), *given])
        options = {n: given[n] if n in given else Description()(defaults[n]) for n in names}
        now = {n: getattr(value, n, None) for n, option in options.items() if self.live and is_module(option)}
        now |= {n: [*v] for n, v in now.items() if isinstance(v, (nn.ModuleList, list, tuple))}
        now |= {n: dict(v) for n, v in now.items() if isinstance(v, (nn.ModuleDict, Mapping))}
        found = {n: v for n, v in now.items() if isinstance(v, (list, dict, nn.Module))}
        return options | {n: self(v, join(path, n)) for n, v in found.items()}, set(found)

    def function(self, function: FunctionType, path: str) -> dict[str, Any]:
        """Return the description of a function: its name, and of a user's own function what changes its result."""
        if is_library(function.__module__):
            return {"function": qualified(function)}
        parts = {
            "closure": variables_of(function),
            "defaults": {"args": function.__defaults__ or (), **(function.__kwdefaults__ or {})},
            "globals": globals_of(function),
        }
        described = {key: self(part, path)["dict"] for key, part in parts.items()}
        return {"function": qualified(function), "code": function_code(function), **described}

    def tensor(self, value: Any) -> dict[str, Any]:
        """Return the description of a tensor, with its values unless it is trained."""
        if not isinstance(value, Tensor):
            return {"not compared": f"array of {value.dtype}"}
        shown = {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        if value.requires_grad or value.layout is not torch.strided:
            return shown
        return {**shown, "values": checksum(value, whole=value.numel() <= LARGE)}


def is_module(option: Any) -> bool:
    """Whether the description of an argument stands for a module, or for a list or dictionary of modules."""
    if isinstance(option, dict):
        return "module" in option or ("dict" in option and is_module([*option["dict"].values()]))
    return isinstance(option, list) and bool(option) and all(map(is_module, option))


def array_is_numeric(value: Any) -> bool:
    """Whether torch can read an array."""
    return isinstance(value, Tensor) or value.dtype.kind in "fiubc"
