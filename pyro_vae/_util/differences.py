"""What differs between two descriptions, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["differences", "in_words", "join", "not_compared"]

#: Parts of a description that are mappings from names; they do not appear in the path of a value.
NAMES = {"options", "attributes", "modules", "buffers", "dict", "closure", "defaults", "globals"}

#: Largest number of characters of a value in a message.
LONGEST = 90


class Nothing:
    """A value that only the other description has."""

    def __str__(self) -> str:
        return "nothing"


def differences(saved: Any, now: Any, path: str = "") -> list[str]:
    """Return what differs, mostly as ``path value (now value)``, without repetitions.

    Code of another version of Python cannot be compared, and is taken to be the same.

    Example:
        >>> saved = {"prior": {"name": "priors.Laplace", "options": {"latent": 3, "scale": 1.0}}}
        >>> now = {"prior": {"name": "priors.Laplace", "options": {"latent": 3, "scale": 2.0}}}
        >>> differences(saved, now)
        ['prior.scale 1.0 (now 2.0)']
        >>> differences(saved, {"prior": {"name": "priors.StandardNormal", "options": {"latent": 3}}})
        ['prior Laplace(latent=3, scale=1.0) (now StandardNormal(latent=3))']
    """
    return list(dict.fromkeys(named(saved, now, path)))


def named(saved: dict[str, Any], now: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the differences of two mappings from names to descriptions."""
    for name in {**saved, **now}:
        yield from pairs(saved.get(name, Nothing()), now.get(name, Nothing()), join(path, name))


def pairs(saved: Any, now: Any, path: str) -> Iterator[str]:
    """Yield the differences of two descriptions."""
    if saved == now:
        return
    if isinstance(saved, dict) and isinstance(now, dict) and kind(saved) == kind(now):
        for key in {**saved, **now}:
            a, b = str(saved.get(key)).split(":"), str(now.get(key)).split(":")
            if key in NAMES:
                yield from named(saved.get(key, {}), now.get(key, {}), path)
            elif key == "code":
                if a[0] == b[0] and a != b:
                    yield f"other code of {path} ({in_words(saved)})"
            elif key == "values":
                # a checksum has no sums where not all rows were read, such as those of a file
                if a[0] != b[0] or (len(a) == len(b) and a != b):
                    yield f"other values of {path} ({in_words(saved)})"
            else:
                yield from pairs(saved.get(key, Nothing()), now.get(key, Nothing()), join(path, key))
    elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now) and any_objects(saved):
        for i, (a, b) in enumerate(zip(saved, now, strict=True)):
            yield from pairs(a, b, join(path, str(i)))
    else:
        yield f"{path} {in_words(saved)} (now {in_words(now)})"


def kind(description: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two descriptions must share so that their parts can be compared."""
    keys = ("name", "factory", "function", "same", "value", "number", "module", "tensor", "dtype")
    return tuple(str(description.get(key)) for key in keys)


def any_objects(values: list[Any]) -> bool:
    """Whether a list contains descriptions of objects, or lists, and not only plain values."""
    return any(isinstance(value, (dict, list)) for value in values)


def in_words(description: Any) -> str:
    """Return a description as a short text, similar to the code that made the object."""
    text = written(description)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def written(value: Any) -> str:
    """Return a description as text."""
    if isinstance(value, list):
        return f"({', '.join(map(written, value))}{',' if len(value) == 1 else ''})"
    if not isinstance(value, dict):
        return str(value)
    for key in ("value", "number", "same", "module", "not compared"):
        if key in value:
            return str(value[key])
    if "tensor" in value:
        return f"tensor {tuple(value['tensor'])} {value.get('dtype', '')}".strip()
    name = next((str(value[key]) for key in ("name", "factory", "function") if key in value), "")
    options = value.get("options", {})
    if "function" in value:
        return f"the function {name}"
    if name:
        inner = ", ".join([*map(written, value.get("args", [])), *(f"{k}={written(v)}" for k, v in options.items())])
        short = name.rpartition(".")[2]
        return short if "factory" in value and not inner else f"{short}({inner})"
    return f"{{{', '.join(f'{key}: {written(v)}' for key, v in value.get('dict', value).items())}}}"


def not_compared(description: Any, path: str = "", *, names: bool = True) -> list[str]:
    """Return the paths of objects that have no plain description, with their class."""
    if isinstance(description, list):
        items = [(value, join(path, str(i)), False) for i, value in enumerate(description)]
    elif not isinstance(description, dict):
        return []
    elif not names and "not compared" in description:
        return [f"{path} ({description['not compared']})"]
    else:
        items = [
            (value, path, True) if key in NAMES and not names else (value, join(path, key), False)
            for key, value in description.items()
        ]
    return [found for value, place, inner in items for found in not_compared(value, place, names=inner)]


def join(path: str, name: str) -> str:
    """Return the path of a part of an object.

    Example:
        >>> join("", "prior"), join("prior", "scale")
        ('prior', 'prior.scale')
    """
    return f"{path}.{name}" if path else name
