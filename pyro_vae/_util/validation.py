"""Checks of arguments."""

from __future__ import annotations

import inspect
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from typing import Any

__all__ = ["check_int", "check_number", "check_positional", "check_unique", "nearest"]


def check_int(name: str, value: Any, minimum: int = 1, maximum: float = math.inf) -> int:
    """Return an integer argument as an int, or raise.

    Args:
        name: name of the argument, for the error message
        value: an int, or anything else with ``__index__`` such as a numpy integer or an integer array of no
            dimension, but no bool
        minimum, maximum: range of valid values

    Raises:
        ValueError: the value is not an integer, or out of range.

    Example:
        >>> import torch
        >>> check_int("num_samples", torch.tensor(8))
        8
    """
    try:
        number = math.nan if is_bool(value) or getattr(value, "ndim", 0) else operator.index(value)
    except TypeError:
        number = math.nan
    if not minimum <= number <= maximum:
        limit = f" and at most {maximum}" if maximum < math.inf else ""
        raise ValueError(f"{name}: expected an int of at least {minimum}{limit}, got {value!r}")
    return number


def check_number(
    name: str,
    value: Any,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    *,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return a real argument as a float, or raise.

    Args:
        name: name of the argument, for the error message
        value: a number of Python or numpy, or an array of no dimension, but no bool
        minimum, maximum: range of valid values
        above, below: exclusive limits

    Raises:
        ValueError: the value is not a finite number, or out of range.

    Example:
        >>> check_number("ratio", 1, above=0, maximum=1)
        1.0
    """
    real = isinstance(value, Real) or getattr(value, "ndim", None) == 0
    number = float(value) if real and not is_bool(value) else math.nan
    if not (minimum <= number <= maximum and above < number < below and math.isfinite(number)):
        limits = [("above", above), ("of at least", minimum), ("of at most", maximum), ("below", below)]
        text = " and".join(f" {word} {limit}" for word, limit in limits if math.isfinite(limit))
        raise ValueError(f"{name}: expected a finite number{text}, got {value!r}")
    return number


def check_unique(name: str, values: Iterable[Any]) -> None:
    """Raise if a value occurs more than once.

    Example:
        >>> check_unique("covariates", ["site", "age", "site"])
        Traceback (most recent call last):
        ValueError: covariates: expected different names, got 'site' more than once. Write each one once
    """
    twice = [value for value, n in Counter(values).items() if n > 1]
    if twice:
        got = ", ".join(map(repr, twice[:5]))
        raise ValueError(f"{name}: expected different names, got {got} more than once. Write each one once")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question that names the known name that is most like another one, or an empty text.

    Example:
        >>> nearest("--latnt", ["--latent", "--seed"])
        ' (did you mean --latent?)'
    """
    lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), lower, n=1)
    return f" (did you mean {lower[near[0]]}?)" if near else ""


def is_bool(value: Any) -> bool:
    """Whether a value is a bool of Python, numpy or torch."""
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))


def check_positional(
    name: str, signature: inspect.Signature, options: Mapping[str, inspect.Parameter], args: Sequence[Any]
) -> None:
    """Raise if a constructor gets more arguments without a name than it takes; ``options`` are those with a name."""
    _, *own = signature.parameters.values()
    first = [p.name for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(args) <= len(first) or any(p.kind is p.VAR_POSITIONAL for p in own):
        return
    named = [f"{key}=..." for key, p in options.items() if p.kind is p.KEYWORD_ONLY and key not in first]
    raise TypeError(
        f"{name}: expected {len(first)} argument{'' if len(first) == 1 else 's'} without a name, got {len(args)}. "
        f"Write {name}({', '.join(first + named)})"
    )
