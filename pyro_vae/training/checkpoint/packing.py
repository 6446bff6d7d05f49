"""State as tensors and JSON: every number comes back bit for bit, and nothing can be anything else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["pack", "parse", "unpack"]

#: Keys that mark what JSON has no form for.
TENSOR, FLOAT, TUPLE, ITEMS = "$tensor", "$float", "$tuple", "$items"


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """Return a tree of plain values and tensors as JSON values, its tensors put into ``tensors``.

    Args:
        value: dictionaries, lists, tuples, strings, numbers, bools, None and tensors
        tensors: gets the tensors, by their place in the tree
        name: the place of ``value``

    Raises:
        TypeError: something else is in it, which would need code to come back.

    Example:
        >>> import torch
        >>> tensors = {}
        >>> packed = pack({"lr": 0.1, "best": -float("inf"), "mean": torch.zeros(2)}, tensors)
        >>> packed
        {'lr': 0.1, 'best': {'$float': '-inf'}, 'mean': {'$tensor': 'mean'}}
        >>> unpack(packed, tensors)
        {'lr': 0.1, 'best': -inf, 'mean': tensor([0., 0.])}
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {TENSOR: name}
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT: repr(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    inner = f"{name}." if name else ""
    if isinstance(value, (list, tuple)):
        items = [pack(item, tensors, f"{inner}{i}") for i, item in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping) and all(isinstance(key, str) and key[:1] != "$" for key in value):
        return {key: pack(item, tensors, f"{inner}{key}") for key, item in value.items()}
    if isinstance(value, Mapping) and all(type(key) is int for key in value):
        return {ITEMS: [[key, pack(item, tensors, f"{inner}{key}")] for key, item in value.items()]}
    raise TypeError(
        f"{name}: expected plain values and tensors, which can be saved without pickle, got {type(value).__name__}"
    )


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what :func:`pack` was given.

    Raises:
        KeyError: a tensor is not there.
        ValueError: something is not of the form that pack gives.
    """
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    mark, inner = next(iter(value.items()), ("", None))
    if mark[:1] != "$":
        return {key: unpack(item, tensors) for key, item in value.items()}
    if mark == TENSOR:
        return tensors[inner]
    if mark == FLOAT:
        return float(inner)
    if mark == TUPLE:
        return tuple(unpack(item, tensors) for item in inner)
    if mark == ITEMS:
        return {int(key): unpack(item, tensors) for key, item in inner}
    raise ValueError(f"unknown mark {mark!r}")


def parse(data: bytes, name: str) -> Any:
    """Read JSON of this package.

    Args:
        data: the bytes
        name: of the file they are from

    Raises:
        ValueError: it is no JSON, or has NaN, infinity or a depth that this package never writes.
    """

    def refuse(text: str) -> None:
        raise ValueError(f"{text} is no number of JSON")

    try:
        return json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected JSON, but {error}") from error
