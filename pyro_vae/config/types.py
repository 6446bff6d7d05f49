"""Checks of JSON values against the type hints of the arguments that get them."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

__all__ = ["check_options", "check_value", "in_words"]

#: Plain types and what JSON has for them.
PLAIN = {bool: "true or false", int: "an integer", float: "a number", str: "a string", type(None): "null"}


def check_value(name: str, value: Any, hint: Any) -> None:
    """Raise unless a JSON value, or a description of an object as a dictionary, fits a type hint.

    Example:
        >>> check_value("hidden", [16, 16], tuple[int, ...])
        >>> check_value("latent", "3", int)
        Traceback (most recent call last):
        ...
        ValueError: latent: expected an integer, got '3'
    """
    if not fits(value, hint):
        raise ValueError(f"{name}: expected {in_words(hint)}, got {value!r}")


def check_options(name: str, hints: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise unless JSON values fit the type hints of the arguments with their names."""
    for key, value in options.items():
        check_value(f"{name}.{key}" if name else key, value, hints.get(key, Any))


def fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value fits a type hint; a dictionary describes an object of any class."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is None or hint is Any or hint is object or isinstance(hint, TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if hint in PLAIN:
        number = isinstance(value, dict) and set(value) == {"number"} and hint is float
        kinds = (int, float) if hint is float else hint
        return number or (isinstance(value, kinds) and (hint is bool or not isinstance(value, bool)))
    if isinstance(origin or hint, type) and issubclass(origin or hint, Mapping):
        return isinstance(value, dict)
    if isinstance(origin or hint, type) and issubclass(origin or hint, Collection):
        if not isinstance(value, (list, tuple)) or not inner:
            return isinstance(value, (list, tuple, dict))
        fixed = origin is tuple and inner[-1] is not Ellipsis
        each = inner if fixed else (inner[0],) * len(value)
        return len(each) == len(value) and all(map(fits, value, each))
    return isinstance(value, dict)


def in_words(hint: Any) -> str:
    """Return a type hint in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(in_words, inner)))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if hint in PLAIN:
        return PLAIN[hint]
    if isinstance(origin or hint, type) and issubclass(origin or hint, Mapping):
        return "an object"
    if isinstance(origin or hint, type) and issubclass(origin or hint, Collection):
        each = [one for one in inner if one is not Ellipsis]
        return f"a list of {PLAIN[each[0]].partition(' ')[2]}s" if each and each[0] in (int, float) else "a list"
    return "an object with name and options"
