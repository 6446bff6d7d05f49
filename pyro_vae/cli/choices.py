"""A command line whose options depend on the classes that it names.

The classes come from the shelves, and the options of a class from its constructor. Names are looked up before the
parser for their options is made: no import path and no file is followed, and ``--help`` shows the options of the
chosen classes.
"""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from argparse import ArgumentError
from argparse import ArgumentParser as PlainParser
from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt, restricted_number_type
from torch import nn

from pyro_vae._util.validation import nearest
from pyro_vae.config import parts
from pyro_vae.config.program import DEFAULTS, MADE
from pyro_vae.config.run import AXES
from pyro_vae.config.types import in_words
from pyro_vae.nets import Net
from pyro_vae.programs import SemiSupervised

__all__ = ["GIVEN", "Choices", "FiniteFloat", "UsageError", "first_line", "look_up", "table", "usage"]

#: Required arguments of parts that a run sets itself, and options that a user cannot set.
GIVEN = {"latent", "shape", "in_shape", "out_shape", "posterior", "columns", "posteriors", "score", "train"}
HIDDEN = {"context", "inputs", "inplace", "device", "dtype"}


#: Types of numbers, and what they are in words.
FiniteFloat = restricted_number_type("FiniteFloat", float, [(">", 0), ("<", math.inf)])
NUMBERS = {
    PositiveInt: "an integer of at least 1",
    NonNegativeInt: "an integer of at least 0",
    FiniteFloat: "a finite number above 0",
    OpenUnitInterval: "a number above 0 and below 1",
}


class UsageError(ValueError):
    """A mistake on the command line."""


class Choices:
    """A command line whose options depend on the classes that it names.

    Args:
        command: name of the command
        argv: its arguments
        arguments: names of its positional arguments, for the usage line
    """

    def __init__(self, command: str, argv: list[str], arguments: str = "") -> None:
        self.argv, self.chosen = argv, {}
        self.shown: str | None = None
        self.parser = ArgumentParser(
            prog=f"pyro-vae {command}",
            usage=f"%(prog)s {arguments}[options]",
            exit_on_error=False,
            allow_abbrev=False,
            parser_mode="json",
        )
        self.option = self.parser.add_argument

    def add(self, key: str, shelf: dict[str, type], default: str | None) -> None:
        """Look up the class that ``--key NAME`` names, and add its options as ``--key.OPTION``.

        ``--key.help NAME`` shows the options of a class and of what it is made of.

        Args:
            key: ``"posterior"``, ``"posterior.net"``, ...
            shelf: the classes to choose from
            default: the name of the class if the command line has none
        """
        name, self.argv = self.take(key)
        asked, self.argv = self.take(f"{key}.help", empty=True)
        if asked is not None:
            self.shown, name = key, asked or name
        cls = self.chosen[key.replace("-", "_")] = look_up(key, default if name is None else name, shelf)
        among = ", ".join(sorted(shelf)) if len(shelf) < 20 else "the names that `pyro-vae list` shows"
        group = self.parser.add_argument_group(
            f"{key} {cls.__name__}", f"{first_line(cls)} (--{key}: one of {among}.)"
        )
        made, defaults = ({*MADE, *AXES}, DEFAULTS) if key == "program" else (set(), {})
        skip = HIDDEN | ((GIVEN | made) - defaults.keys()).intersection(parts.required(cls))
        for option, (parameter, hint) in parts.arguments(cls).items():
            if option in defaults and option in parts.PLAIN:
                skip.add(option)
                group.add_argument(f"--{key}.{option}", type=parts.PLAIN[option], default=defaults[option])
            names, plain = names_and_values(hint)
            if option in skip or names is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            skip.add(option)
            self.add_by_name(group, f"{key}.{option}", names, plain, defaults.get(option, parameter.default))
        group.add_class_arguments(cls, key, as_group=False, skip=skip)
        if "top" in skip:
            # the data of `top` are latents, which are never missing
            group.add_class_arguments(SemiSupervised, key, as_group=False, skip={*MADE, *AXES, "missing"})

    def add_by_name(self, group: Any, key: str, shelf: dict[str, type], plain: Any, preset: Any) -> None:
        """Add an option whose value is a name, or a plain value of the type ``plain`` if there is one."""
        value = self.take(key)[0] or self.take(f"{key}.help", empty=True)[0] or None
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
                f"{part}: {self.chosen[part].__name__} needs `{option}`, which the command cannot make. Build it in "
                "Python and train it with pyro_vae.fit"
            )

    def take(self, key: str, *, empty: bool = False) -> tuple[str | None, list[str]]:
        """Return the value of ``--key``, which may be ``empty``, and the arguments without it."""
        parser = PlainParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        parser.add_argument(f"--{key}", dest="value", **({"nargs": "?", "const": ""} if empty else {}))
        found, rest = usage(parser.parse_known_args, self.argv)
        return found.value, rest

    def parse(self) -> Namespace:
        """Return the settings."""
        if self.shown:
            groups = self.parser._action_groups
            groups[:] = [g for g in groups if re.match(rf"{re.escape(self.shown)}[ .]", g.title or "")]
            self.parser.print_help()
            raise SystemExit(0)
        try:
            return usage(self.parser.parse_args, self.argv)
        except UsageError as error:
            options = [*self.parser._option_string_actions, *(f"--{key.replace('_', '-')}" for key in self.chosen)]
            self.check_value(error)
            unknown = re.search(r"(?<=arguments: )[^\s=]+", str(error))
            hint = nearest(unknown[0], options) if unknown else ""
            if unknown and unknown[0][0] != "-" and "--data" in options:
                hint = f" (did you mean --data {unknown[0]}?)"
            raise UsageError(f"{error}{hint}") from error

    def check_value(self, error: UsageError) -> None:
        """Raise an error about the value of an option in words, with the name of the option."""
        text = str(error.__cause__)
        if choice := re.match(r"argument --(\S+): invalid choice: '(.*)' \(", text):
            look_up(choice[1], choice[2], dict.fromkeys(self.parser._option_string_actions[f"--{choice[1]}"].choices))
        key = text.partition('Parser key "')[2].partition('"')[0]
        for name, action in self.parser._option_string_actions.items():
            if action.dest == key and name.startswith("--"):
                found = self.take(name[2:], empty=True)[0]
                raise UsageError(f"{name[2:]}: expected {value_in_words(action._typehint)}, got {found!r}") from error

    def describe(self, key: str, settings: Namespace) -> dict[str, Any]:
        """Return the class chosen for ``key`` and its options as ``{"name": ..., "options": {...}}``."""
        inner = [c for c in self.chosen if c.rpartition(".")[0] == key]
        plain = vars(settings.get(key) or Namespace()).items()
        options = {name: value for name, value in plain if f"{key}.{name}" not in inner}
        nested = {c.rpartition(".")[2]: self.describe(c, settings) for c in inner}
        return {"name": self.chosen[key].__name__, "options": {**options, **nested}}


def names_and_values(annotation: Any) -> tuple[dict[str, type] | None, Any]:
    """Return the classes that an option may name (None: it takes no object), and the type of its plain values."""
    shelves, names, plain = parts.shelves(), {}, []
    takes_objects = False
    for member in members(annotation):
        if typing.get_origin(member) is Callable:
            takes, gives = typing.get_args(member)
            gives = members(gives)
            if Net in gives:
                names |= shelves["network"]
            elif float in gives:
                names |= shelves["schedule"]
            elif nn.Module in gives and takes == []:
                names |= shelves["activation"]
        # Python 3.10 takes Sequence[int] for a class
        elif inspect.isclass(member) and not typing.get_origin(member) and member.__module__ != "builtins":
            objects = {**shelves["scale"], **shelves["penalty"], **shelves["inference"]}.items()
            names |= {name: cls for name, cls in objects if issubclass(cls, member)}
        elif any(names_and_values(inner)[0] is not None for inner in typing.get_args(member)):
            pass  # a sequence of objects, which no name can make
        else:
            plain += [] if member is types.NoneType else [member]
            continue
        takes_objects = True
    values = typing.Union[tuple(plain)] if plain else None  # noqa: UP007 (the members are data)
    return names if takes_objects else None, values


def value_in_words(annotation: Any) -> str:
    """Return what an option takes, in words."""
    kinds = [kind for kind in members(annotation) if kind is not types.NoneType]
    return " or ".join(dict.fromkeys(NUMBERS.get(kind) or in_words(kind) for kind in kinds))


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation itself."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def look_up(what: str, name: str | None, table: Mapping[str, Any]) -> Any:
    """Return the entry of a table, or raise a UsageError with the nearest name."""
    return usage(parts.resolve, what, name, table)


def usage(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function and raise its errors as mistakes on the command line."""
    try:
        return function(*args)
    except (ArgumentError, ValueError) as error:
        text = re.sub(r'Parser key "([^"]*)":', r"\1:", str(error))
        text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(text.split()))
        raise UsageError(text) from error


def first_line(obj: Any) -> str:
    """Return the first line of a docstring without its markup."""
    line = (inspect.getdoc(obj) or "").partition("\n")[0]
    return re.sub(r"(?::\w+)?:?`+~?([^`]*)`+", r"\1", line)


def table(rows: Mapping[str, str]) -> str:
    """Return names and texts in two columns."""
    width = max(map(len, rows), default=0) + 3
    return "\n".join(f"  {name:{width}}{text}".rstrip() for name, text in rows.items())
