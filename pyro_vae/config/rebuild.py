"""A program built again from its description in ``config.json``, which ``fit`` writes.

Each name in a description is looked up in a closed table of the classes of this package (and of torch's activations):
no import path and no code is followed, and nothing is unpickled.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae import conditional, likelihoods, nets, posteriors, priors, programs, scales
from pyro_vae._util.code import qualified
from pyro_vae._util.describe import describe, is_module
from pyro_vae._util.differences import differences, in_words, join
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.shared_parameters import shared_parameters
from pyro_vae.config.bounded import Bounded
from pyro_vae.config.parts import hints, shelf, shelves
from pyro_vae.config.types import check_options
from pyro_vae.data import tables
from pyro_vae.programs import Program

__all__ = ["classes", "rebuild"]

#: Modules whose exported classes a description may name, and those of the files in which these classes are.
ROOMS = (priors, likelihoods, posteriors, nets, programs, scales, tables)

#: Types of plain attributes that are set again after an object is built, such as ``takes_missing``.
PLAIN = (bool, int, float, str)

#: Types of numbers by name.
DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}

#: Errors of a constructor that gets damaged options.
MALFORMED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

HINT = "Build the program in code, as you did for training, and load its weights by pyro_vae.load(run_dir, program)"


@cache
def classes() -> Mapping[str, Any]:
    """Return the classes that a description may name, such as ``"likelihoods.Normal"``.

    Example:
        >>> classes()["nets.MLP"].__name__, "torch.ReLU" in classes(), "torch.Linear" in classes()
        ('MLP', True, False)
    """
    exported = [cls for room in ROOMS for cls in shelf(room, object).values()]
    files = [vars(sys.modules[cls.__module__]) for cls in exported if cls.__module__.startswith("pyro_vae.")]
    more = [found for names in files for name in names.get("__all__", ()) if inspect.isclass(found := names[name])]
    activations = shelves()["activation"].values()
    return MappingProxyType({qualified(cls): cls for cls in (*exported, *more, conditional.UnitNormal, *activations)})


class Foreign(Exception):
    """Parts of a description that are not the library's, or not of the program.

    Args:
        parts: each with its path and its class or function
    """

    def __init__(self, parts: list[str]) -> None:
        super().__init__(", ".join(parts))
        self.parts = parts


class Rebuilder:
    """A function from descriptions to objects, which builds a module once that occurs several times."""

    def __init__(self) -> None:
        self.built: dict[str, nn.Module] = {}

    def __call__(self, description: Any, path: str = "") -> Any:
        """Return the value at a path.

        Raises:
            Foreign: it or some of its parts are not the library's.
            ValueError: its options do not fit.
        """
        if isinstance(description, list):
            return tuple(self.each({str(i): item for i, item in enumerate(description)}, path).values())
        if not isinstance(description, dict):
            return description
        if "same" in description and description["same"] in self.built:
            return self.built[description["same"]]
        if "number" in description:
            return float(description["number"])
        if "dict" in description:
            return self.each(description["dict"], path)
        if description.get("value") in DTYPES:
            return DTYPES[description["value"]]
        if "tensor" in description:
            # its values are in the weights; the program is compared with its description afterwards
            return torch.ones(description["tensor"], dtype=DTYPES[f"torch.{description['dtype']}"])
        name = description.get("name", description.get("factory"))
        if name not in classes() or "code" in description:
            raise Foreign([f"{path or 'program'} ({in_words(description)})"])
        return self.build(classes()[name], description, path)

    def each(self, descriptions: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Return several values; one error names all parts that are not the library's."""
        found, foreign = {}, []
        for name, description in descriptions.items():
            try:
                found[name] = self(description, join(path, name))
            except Foreign as error:
                foreign += error.parts
        if foreign:
            raise Foreign(foreign)
        return found

    def build(self, cls: type, description: Mapping[str, Any], path: str) -> Any:
        """Return an object or factory of a known class."""
        attributes = description.get("attributes", {})
        # an activation keeps its arguments as attributes
        names = inspect.signature(cls).parameters
        options = description.get("options") or {name: v for name, v in attributes.items() if name in names}
        check_options(path, hints(cls), options)
        values = self.each(options, path)
        args = self(description.get("args", []), path)
        if "factory" in description:
            return partial(cls, *args, **values) if args or values else cls
        try:
            found = cls(*args, **values)
        except MALFORMED as error:
            raise ValueError(f"{path or 'program'}: {in_words(description)} cannot be built: {error}") from error
        if isinstance(found, nn.Module):
            self.built[path] = found
            for key, value in attributes.items():
                if isinstance(value, PLAIN) and key not in options and type(getattr(found, key, None)) is type(value):
                    setattr(found, key, value)
        return found


def rebuild(settings: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> Program:
    """Build the program of a run of ``fit`` and load its weights.

    Args:
        settings: the settings in its ``config.json``
        weights: the weights by name
        path: that file, for error messages

    Raises:
        ValueError: a part is not the library's, or the settings are damaged. The message says what, and how to load
            the weights into a program that you build yourself.
    """
    try:
        description, shared = settings["program"], settings["shared"]
        rebuilder = Rebuilder()
        with fork_rng(seed=0), Bounded(weights):
            program = rebuilder(description)
        if not isinstance(program, Program):
            raise TypeError(f"program is {in_words(description)}")
        own = set(program.modules())
        outside = [where for where, part in rebuilder.built.items() if part not in own and [*part.parameters()]]
        if outside:
            raise Foreign(
                [f"{where}, which is outside the program, so that its weights are not saved" for where in outside]
            )
        restore_arguments(program, description)
        names = sorted(program.state_dict().keys() ^ weights.keys())
        if not names:
            load_weights(program, weights)
        for name, p in program.named_parameters():
            p.requires_grad_(name not in settings["frozen"])
        found = differences({"": description}, {"": describe(program)})
    except Foreign as error:
        if description.get("name") == qualified(programs.Amortized):
            model = in_words(description["options"]["model"])
            raise ValueError(
                f"run_dir: expected parts of this library in {path.parent}, got your model ({model}) with an "
                "amortized guide of it: call pyro_vae.amortize with that model and the same options again, and load "
                "the weights by pyro_vae.load(run_dir, program)"
            ) from error
        raise ValueError(
            f"run_dir: expected parts of this library, which can be built again from their names, in {path.parent}, "
            f"got {error}. {HINT}"
        ) from error
    except (*MALFORMED, RecursionError) as error:
        raise ValueError(f"{path}: expected a description of a program, but {error}. {HINT}") from error
    # an option that a later version has added is not a change
    changed = [f"weights {name}" for name in names] + [text for text in found if " nothing (now " not in text]
    if changed or shared_parameters(program) != shared:
        what = ", ".join(changed[:3]) or "parameters that share memory"
        raise ValueError(f"run_dir: {path.parent} has a program that was changed after it was built: {what}. {HINT}")
    return program


def load_weights(program: Program, weights: Mapping[str, Tensor]) -> None:
    """Load weights into a program, in their own types."""
    kinds = {t.dtype for t in weights.values() if t.is_floating_point()}
    if len(kinds) == 1:  # buffers that are not saved have it as well
        program.to(*kinds)
    for name, value in program.state_dict(keep_vars=True).items():
        if name in weights:
            value.data = value.data.to(weights[name].dtype)
    program.load_state_dict(weights)


def restore_arguments(module: nn.Module, description: Mapping[str, Any]) -> None:
    """Replace the tensors among the recorded arguments of a module and its parts by their descriptions.

    They were built as placeholders, whose values the weights replace; the program is described as it was.
    """
    options = description.get("options", {})
    given = module.__dict__.get("_arguments", {})
    given |= {name: options[name] for name, value in given.items() if name in options and not is_module(value)}
    for name, inner in {**options, **description.get("modules", {})}.items():
        part = getattr(module, name, None)
        if isinstance(part, nn.ModuleDict) and isinstance(inner, dict) and "dict" in inner:
            part, inner = tuple(part.values()), [*inner["dict"].values()]
        parts = [part] if isinstance(inner, dict) else part if isinstance(part, (nn.ModuleList, tuple)) else []
        for one, text in zip(parts, inner if isinstance(inner, list) else [inner], strict=False):
            if isinstance(one, nn.Module) and isinstance(text, dict):
                restore_arguments(one, text)
