"""What differs between two descriptions, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["differences", "in_words", "not_compared"]

#: Parts of a description that do not appear in the path of a value.
TRANSPARENT = {"options", "attributes", "modules", "buffers", "dict"}

#: Characters of a value in a message.
LONGEST = 90


class Nothing:
    """The place of a value that only the other description has."""

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
    return list(dict.fromkeys(pairs(saved, now, path)))


def pairs(saved: Any, now: Any, path: str) -> Iterator[str]:
    """Yield the differences."""
    if saved == now:
        return
    if isinstance(saved, dict) and isinstance(now, dict) and kind(saved) == kind(now):
        for key in {**saved, **now}:
            inner = path if key in TRANSPARENT else f"{path}.{key}" if path else key
            a, b = saved.get(key, Nothing()), now.get(key, Nothing())
            if key == "code":
                if a != b and str(a).partition(":")[0] == str(b).partition(":")[0]:
                    yield f"other code of {path} ({in_words(saved)})"
            elif key == "values":
                # without sums if not all rows were read, as those of a file
                one, other = str(a).split(":"), str(b).split(":")
                if one[0] != other[0] or (len(one) == len(other) and one != other):
                    yield f"other values of {path} ({in_words(saved)})"
            elif isinstance(a, Nothing) and key in TRANSPARENT:
                yield from pairs({}, b, inner)
            elif isinstance(b, Nothing) and key in TRANSPARENT:
                yield from pairs(a, {}, inner)
            else:
                yield from pairs(a, b, inner)
    elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now) and any_objects(saved):
        for i, (a, b) in enumerate(zip(saved, now, strict=True)):
            yield from pairs(a, b, f"{path}.{i}")
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
    return f"{{{', '.join(f'{k}: {written(v)}' for k, v in value.get('dict', value).items())}}}"


def not_compared(description: Any, path: str = "") -> list[str]:
    """Return the paths of objects that have no plain description, with their class."""
    if isinstance(description, list):
        return [found for i, value in enumerate(description) for found in not_compared(value, f"{path}.{i}")]
    if not isinstance(description, dict):
        return []
    if "not compared" in description:
        return [f"{path} ({description['not compared']})"]
    return [
        found
        for key, value in description.items()
        for found in not_compared(value, path if key in TRANSPARENT else f"{path}.{key}" if path else key)
    ]
