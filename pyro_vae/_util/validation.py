"""The check of arguments that count something."""

from __future__ import annotations

from typing import Any

__all__ = ["check_int"]


def check_int(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is no whole number of at least so many.

    Args:
        name: of the argument
        value: what was given for it
        least: the smallest number that makes sense

    Raises:
        ValueError: it is none, or too small.

    Example:
        >>> check_int("draws", 8)
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected an int of at least {least}, got {value!r}")
