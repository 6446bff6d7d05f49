"""Fingerprints of code and of numbers: equal for equal functions, classes and tensors in every process."""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["checksum", "code_of", "function_code", "globals_of", "hooks_of", "is_library", "qualified", "variables_of"]

#: Packages whose code is compared by name alone.
LIBRARIES = {"numpy", "pyro", "pyro_vae", "torch"}

#: Largest number of rows of a tensor that are hashed.
ROWS = 64

#: How many numbers are summed at once.
CHUNK = 2**22


def is_library(module: str | None) -> bool:
    """Whether a module is part of Python, torch, Pyro, numpy or this package."""
    top = (module or "builtins").partition(".")[0]
    return top in LIBRARIES or top in sys.stdlib_module_names


def function_code(function: FunctionType) -> str:
    """Return a hash of what a function does: its bytecode, names and constants, without docstring and line numbers."""
    return f"{sys.implementation.cache_tag}:{digest(code_parts(function.__code__, function.__doc__))}"


def class_code(cls: type) -> str:
    """Return a hash of the methods and plain attributes of a class and its bases, down to those of a library."""
    parts = []
    for base in cls.__mro__:
        if is_library(base.__module__):
            continue
        for name, value in sorted(vars(base).items()):
            value = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(value, FunctionType):
                parts.append((name, code_parts(value.__code__, value.__doc__)))
            elif name[:2] != "__" and isinstance(value, (bool, int, float, str, tuple, type(None))):
                parts.append((name, repr(value)))
    return f"{sys.implementation.cache_tag}:{digest(parts)}"


def qualified(value: Any) -> str:
    """Return the name of a class or function: of a library with its folder, such as ``"likelihoods.Normal"``."""
    module, name = getattr(value, "__module__", None) or "builtins", getattr(value, "__qualname__", repr(value))
    top, _, rest = module.partition(".")
    if top == "pyro_vae":
        return f"{rest.partition('.')[0]}.{name}"
    return f"{top}.{name}" if is_library(module) and top != "builtins" else name


def code_of(cls: type) -> dict[str, str]:
    """Return the code of a user's own class; a library's class is compared by name."""
    return {} if is_library(cls.__module__) else {"code": class_code(cls)}


def variables_of(function: FunctionType) -> dict[str, Any]:
    """Return the variables that a function closes over, without those that have no value yet."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):
            found[name] = cell.cell_contents
    return found


def globals_of(function: FunctionType) -> dict[str, Any]:
    """Return the globals of a user's function that change its result: values, modules, functions and classes."""
    kinds = (bool, int, float, str, tuple, Tensor, np.ndarray, partial, nn.Module)
    found = {}
    for name in sorted(names_of(function.__code__)):
        value = function.__globals__.get(name)
        own = isinstance(value, (FunctionType, type)) and not is_library(value.__module__)
        if own or isinstance(value, kinds):
            found[name] = value
    return found


def code_parts(code: CodeType, doc: str | None = None) -> list[Any]:
    """Return the parts of a code object that change what it does, nested functions included."""
    constants = [
        code_parts(c) if isinstance(c, CodeType) else sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c)
        for c in code.co_consts
        if doc is None or c != doc
    ]
    return [code.co_code.hex(), code.co_names, constants, code.co_argcount, code.co_kwonlyargcount, code.co_flags]


def names_of(code: CodeType) -> set[str]:
    """Return the names of globals and attributes that a code object reads, nested functions included."""
    inner = (names_of(c) for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*inner)


def digest(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the repr of a value."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def sampled_rows(n: int, most: int = ROWS) -> list[int]:
    """Return at most ``most`` evenly spaced row numbers, the first and the last among them.

    Example:
        >>> sampled_rows(3), sampled_rows(101, most=3)
        ([0, 1, 2], [0, 50, 100])
    """
    return list(range(n)) if n <= most else [i * (n - 1) // (most - 1) for i in range(most)]


def checksum(t: Tensor, *, whole: bool = True) -> str:
    """Return a fingerprint of the values of a tensor, equal on every device.

    It is a hash of at most 64 evenly spaced rows and, if ``whole``, of two exact sums over all rows, of which one
    depends on their order. Values of other rows can only change it through the sums; a change that keeps both sums
    is not noticed.

    Args:
        t: a tensor of any type, read once in chunks
        whole: whether to read all rows

    Example:
        >>> x = torch.arange(1000.0)
        >>> same, other = x.clone(), x.clone()
        >>> other[[500, 501]] = x[[501, 500]]
        >>> checksum(same) == checksum(x), checksum(other) == checksum(x)
        (True, False)
    """
    t = t.detach()
    if t.is_meta or type(t) not in (Tensor, nn.Parameter):
        return "no data"
    rows = t.reshape(1, -1) if t.dim() < 1 else t.flatten(1) if t.dim() > 1 else t[:, None]
    sample = rows[torch.tensor(sampled_rows(len(rows)), dtype=torch.int64, device=t.device)] if rows.numel() else rows
    found = hashlib.sha256(as_integers(sample).cpu().numpy().tobytes()).hexdigest()[:16]
    if not whole or not rows.numel():
        return found
    plain = weighted = 0
    start = 0
    for chunk in rows.split(max(1, CHUNK // rows.shape[1])):
        sums = as_integers(chunk).sum(1, dtype=torch.int64)
        places = torch.arange(start + 1, start + 1 + len(chunk), device=t.device)
        plain, weighted = plain + int(sums.sum()), weighted + int((sums * places).sum())
        start += len(chunk)
    return f"{found}:{plain % 2**64:016x}:{weighted % 2**64:016x}"


def as_integers(t: Tensor) -> Tensor:
    """Return the bits of numbers as integers, whose sums are exact in any order."""
    t = torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
    return t.contiguous().view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()])


def hooks_of(value: Any) -> list[Any]:
    """Return the hooks of a module that change what it computes; none of any other object."""
    kinds = ("_forward_pre_hooks", "_forward_hooks")
    return [hook for kind in kinds for hook in getattr(value, "__dict__", {}).get(kind, {}).values()]
