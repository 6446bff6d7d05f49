"""State as JSON and safetensors: numbers are restored bit for bit, and reading a file never runs code."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

__all__ = ["CheckpointError", "digest", "from_bytes", "read_weights", "to_bytes", "unshared", "weights_to_bytes"]

#: Keys for values that JSON cannot represent.
TENSOR, FLOAT, TUPLE, ITEMS = "$tensor", "$float", "$tuple", "$items"


class CheckpointError(ValueError):
    """A saved file is damaged; the message names the file, the damage, and the last good checkpoint."""


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """Return a tree of plain values and tensors as JSON values, and collect its tensors.

    Args:
        value: dictionaries, lists, tuples, strings, numbers, bools, None and tensors
        tensors: receives the tensors, by their place in the tree
        name: the place of ``value``

    Raises:
        TypeError: the tree contains any other object.

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
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) is int:  # the checks for numbers of other libraries take most of the time of a checkpoint
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {FLOAT: repr(float(value))}
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else {FLOAT: repr(float(value))}
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
    """Return what was passed to :func:`pack`.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a key is unknown.
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
    raise ValueError(f"unknown key {mark!r}")


def parse(data: bytes, name: str) -> Any:
    """Parse JSON.

    Args:
        data: the bytes
        name: name of their file, for error messages

    Raises:
        ValueError: the bytes are not JSON, contain NaN or infinity, or are nested too deeply.
    """

    def refuse(text: str) -> None:
        raise ValueError(f"{text} is not a JSON number")

    try:
        return json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected JSON, but {error}") from error


def to_bytes(value: Any) -> tuple[bytes, bytes]:
    """Return a tree of plain values and tensors as a JSON file and a safetensors file."""
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(pack(value, tensors), allow_nan=False).encode()
    return plain, save(unshared(tensors))


def from_bytes(plain: bytes, tensors: bytes, name: str = "state") -> Any:
    """Return what was passed to :func:`to_bytes`; ``name`` is the name of the JSON file, for error messages."""
    return unpack(parse(plain, name), load(tensors))


def weights_to_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """Return weights as a safetensors file whose header contains their digest."""
    weights = unshared(weights)
    return save(weights, metadata={"sha256": digest(weights)})


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file written with :func:`weights_to_bytes`.

    Raises:
        CheckpointError: the file is damaged, or was not written by this package.
    """
    data = path.read_bytes()
    try:
        weights = load(data)
        size = int.from_bytes(data[:8], "little")
        expected = json.loads(data[8 : 8 + size]).get("__metadata__", {}).get("sha256")
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file: {error}") from error
    if expected != digest(weights):
        raise CheckpointError(f"{path}: damaged: the digest in its header is not that of the weights")
    return weights


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors, as safetensors refuses tensors that share memory (a VampPrior contains the posterior)."""
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}
