"""Checks of arguments."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["check_int"]


def check_int(name: str, value: Any, minimum: int = 1) -> int:
    """Return an argument as an int, or raise if it is not an integer of at least ``minimum``.

    Args:
        name: name of the argument
        value: its value: anything with ``__index__``, such as a numpy integer, but not a bool
        minimum: smallest valid value

    Raises:
        ValueError: the value is not an integer, or is too small.

    Example:
        >>> check_int("num_samples", 8)
        8
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ValueError(f"{name}: expected an int of at least {minimum}, got {value!r}")
    return number
