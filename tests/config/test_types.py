"""JSON values are checked against the type hints of the arguments that get them."""

import inspect

import pytest

from pyro_vae._util.describe import describe
from pyro_vae.config.parts import arguments, shelves
from pyro_vae.config.types import check_options, check_value

CLASSES = {f"{kind}.{name}": cls for kind, shelf in shelves().items() for name, cls in shelf.items()}


@pytest.mark.parametrize("cls", list(CLASSES.values()), ids=list(CLASSES))
def test_defaults_fit_and_text_is_refused_for_a_number(cls):
    for name, (parameter, hint) in arguments(cls).items():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        if default is not parameter.empty:
            check_options("part", {name: hint}, {name: describe(default)})
        if isinstance(default, (int, float, tuple)) or hint in (int, float, bool):
            with pytest.raises(ValueError, match=rf"part\.{name}: expected .*, got 'x'"):
                check_options("part", {name: hint}, {name: "x"})


@pytest.mark.parametrize(
    ("value", "hint", "said"),
    [
        ("3", int, "an integer"),
        (True, int, "an integer"),
        (0.5, int, "an integer"),
        (None, float, "a number"),
        (1, bool, "true or false"),
        (3, str, "a string"),
        ([1, "x"], tuple[int, ...], "a list of integers"),
        ([1], tuple[int, int], "a list of integers"),
        (3, list[int] | None, "a list of integers or null"),
        ("x", dict, "an object"),
    ],
)
def test_another_type_is_refused(value, hint, said):
    with pytest.raises(ValueError, match=f"option: expected {said}, got "):
        check_value("option", value, hint)
