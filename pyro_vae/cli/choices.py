"""A command line whose options depend on the classes that it names.

What can be chosen is read off the shelves, and the options of a choice off its constructor. Names are looked up
before the parser of the chosen classes is made: no import path and no file is followed, and ``--help`` shows the
options of what was chosen.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from argparse import ArgumentError
from argparse import ArgumentParser as PlainParser
from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from torch import nn

from pyro_vae.config import run
from pyro_vae.nets import Net

__all__ = ["Choices", "UsageError", "first_line", "look_up", "table"]

#: Required arguments that the command gives itself, to parts and to programs; options that are no choice of a user.
GIVEN = {"latent", "shape", "in_shape", "out_shape", "posterior", "columns"}
PARTS = {"prior", "likelihood", "posterior", "classes", "classifier", "mask"}
HIDDEN = {"context", "inplace", "device", "dtype"}


class UsageError(ValueError):
    """A mistake on the command line."""


class Choices:
    """A command line whose options depend on the classes that it names.

    Args:
        command: the name of the command
        argv: its arguments
    """

    def __init__(self, command: str, argv: list[str]) -> None:
        self.argv, self.chosen = argv, {}
        self.parser = ArgumentParser(
            prog=f"pyro-vae {command}",
            usage="%(prog)s [options]",
            exit_on_error=False,
            allow_abbrev=False,
            parser_mode="json",
        )

    def add(self, key: str, shelf: dict[str, type], default: str | None) -> None:
        """Look up what ``--key NAME`` names, and add its options as ``--key.OPTION``.

        Args:
            key: ``"posterior"``, ``"posterior.net"``, ...
            shelf: what may be named
            default: the name where there is none
        """
        name, self.argv = self.take(key)
        cls = self.chosen[key.replace("-", "_")] = look_up(key, default if name is None else name, shelf)
        among = ", ".join(sorted(shelf)) if len(shelf) < 20 else "those of `pyro-vae list`"
        about = f"{first_line(cls)} (--{key} chooses among {among}.)"
        group = self.parser.add_argument_group(f"{key} {cls.__name__}", about)
        skip = HIDDEN | (PARTS if key == "program" else GIVEN).intersection(run.required(cls))
        for option, (parameter, hint) in run.arguments(cls).items():
            names, plain = names_and_values(hint)
            if option in skip or names is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            skip.add(option)
            self.add_by_name(group, f"{key}.{option}", names, plain, parameter.default)
        group.add_class_arguments(cls, key, as_group=False, skip=skip)

    def add_by_name(self, group: Any, key: str, shelf: dict[str, type], plain: Any, preset: Any) -> None:
        """Add an option that takes a name, or plain values of the type ``plain`` where that is not None."""
        value, _ = self.take(key)
        default = next((name for name, cls in shelf.items() if cls is preset), None)
        is_name = default is not None if value is None else plain is None or value[:1].isalpha()
        if is_name and shelf:
            self.add(key, shelf, default)
        elif plain is not None:
            among = f"a value, or one of {', '.join(shelf)}" if shelf else "a value"
            group.add_argument(f"--{key}", type=plain, default=preset, help=among)
        elif preset is inspect.Parameter.empty:
            part, _, option = key.rpartition(".")
            raise UsageError(
                f"{part}: {self.chosen[part].__name__} needs `{option}`, which the command cannot make: "
                "build it in Python, and train it by pyro_vae.fit"
            )

    def take(self, key: str) -> tuple[str | None, list[str]]:
        """Return the value of ``--key`` and the arguments without it."""
        parser = PlainParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument(f"--{key}", dest="value")
        found, rest = usage(parser.parse_known_args, self.argv)
        return found.value, rest

    def parse(self) -> Namespace:
        """Return the settings."""
        return usage(self.parser.parse_args, self.argv)

    def describe(self, key: str, settings: Namespace) -> dict[str, Any]:
        """Return what was chosen for ``key`` as ``{"name": ..., "options": {...}}``."""
        inner = [c for c in self.chosen if c.rpartition(".")[0] == key]
        plain = vars(settings.get(key) or Namespace()).items()
        options = {name: value for name, value in plain if f"{key}.{name}" not in inner}
        nested = {c.rpartition(".")[2]: self.describe(c, settings) for c in inner}
        return {"name": self.chosen[key].__name__, "options": {**options, **nested}}


def names_and_values(annotation: Any) -> tuple[dict[str, type] | None, Any]:
    """Say what an option of this annotation may name (None: it takes no object), and the type of its plain values."""
    names, plain = {}, []
    takes_objects = False
    for member in members(annotation):
        if typing.get_origin(member) is Callable:
            takes, gives = typing.get_args(member)
            gives = members(gives)
            if Net in gives:
                names |= run.shelves()["network"]
            elif float in gives:
                names |= run.shelves()["schedule"]
            elif nn.Module in gives and takes == []:
                names |= run.shelves()["activation"]
        # Python 3.10 takes Sequence[int] for a class
        elif inspect.isclass(member) and not typing.get_origin(member) and member.__module__ != "builtins":
            names |= {name: cls for name, cls in run.shelves()["scale"].items() if issubclass(cls, member)}
        elif any(names_and_values(inner)[0] is not None for inner in typing.get_args(member)):
            pass  # a sequence of objects, which no name makes
        else:
            plain += [] if member is types.NoneType else [member]
            continue
        takes_objects = True
    values = typing.Union[tuple(plain)] if plain else None  # noqa: UP007 (the members are data)
    return names if takes_objects else None, values


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def look_up(what: str, name: str | None, table: Mapping[str, Any]) -> Any:
    """Return the entry of a table, or say what was expected."""
    return usage(run.resolve, what, name, table)


def usage(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function, and tell its errors as mistakes on the command line."""
    try:
        return function(*args)
    except (ArgumentError, ValueError) as error:
        text = re.sub(r'Parser key "([^"]*)":', r"\1:", str(error))
        text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(text.split()))
        raise UsageError(text) from error


def first_line(obj: Any) -> str:
    """Return the first line of a docstring, without its markup."""
    line = (inspect.getdoc(obj) or "").partition("\n")[0]
    return re.sub(r"(?::\w+)?:?`+~?([^`]*)`+", r"\1", line)


def table(rows: Mapping[str, str]) -> str:
    """Return names and texts in two columns."""
    width = max(map(len, rows), default=0) + 3
    return "\n".join(f"  {name:{width}}{text}".rstrip() for name, text in rows.items())
