"""A program built again from its description in ``config.json``, which ``fit`` writes.

Each name in a description is looked up in a closed table of the classes that this package exports (and of torch's
activations): no import path and no code is followed, and nothing is unpickled.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae import likelihoods, nets, posteriors, priors, programs, scales
from pyro_vae._util.code import qualified
from pyro_vae._util.describe import describe, shared_parameters
from pyro_vae._util.differences import differences, in_words, join
from pyro_vae._util.random_state import fork_rng
from pyro_vae.config.parts import shelf, shelves
from pyro_vae.data import tables
from pyro_vae.programs import Program

__all__ = ["known", "rebuild"]

#: Plain attributes that are set again after an object is built, such as ``takes_missing``.
PLAIN = (bool, int, float, str)


@cache
def known() -> Mapping[str, Any]:
    """Return the classes that a description may name, such as ``"likelihoods.Normal"``.

    Example:
        >>> known()["nets.MLP"].__name__, "torch.ReLU" in known(), "torch.Linear" in known()
        ('MLP', True, False)
    """
    rooms = (priors, likelihoods, posteriors, nets, programs, scales, tables)
    exported = [cls for room in rooms for cls in shelf(room, object).values()]
    beside = [vars(sys.modules[cls.__module__]) for cls in exported if cls.__module__.startswith("pyro_vae.")]
    more = [found for names in beside for name in names.get("__all__", ()) if inspect.isclass(found := names[name])]
    activations = shelves()["activation"].values()
    return MappingProxyType({qualified(cls): cls for cls in (*exported, *more, *activations)})


class Unknown(ValueError):
    """Parts of a description that are not the library's; the message lists them."""


class Rebuilder:
    """Builds objects from descriptions, each module that occurs several times once."""

    def __init__(self) -> None:
        self.built: dict[str, nn.Module] = {}

    def __call__(self, description: Any, path: str) -> Any:
        """Return the value at a path.

        Raises:
            Unknown: it or a part of it is not the library's, or its options do not fit.
        """
        if isinstance(description, list):
            return tuple(self(item, join(path, str(i))) for i, item in enumerate(description))
        if not isinstance(description, dict):
            return description
        if "same" in description and description["same"] in self.built:
            return self.built[description["same"]]
        if "number" in description:
            return float(description["number"])
        if "dict" in description:
            return {key: self(value, join(path, key)) for key, value in description["dict"].items()}
        if isinstance(getattr(torch, str(description.get("value")).removeprefix("torch."), None), torch.dtype):
            return getattr(torch, description["value"].removeprefix("torch."))
        if "tensor" in description and hasattr(torch, str(description.get("dtype"))):
            # only its shape matters here: the values are in the weights
            return torch.ones(description["tensor"], dtype=getattr(torch, description["dtype"]))
        name = description.get("name", description.get("factory"))
        if name not in known() or "code" in description:
            raise Unknown(f"{path} ({in_words(description)})")
        cls = known()[name]
        options = self.arguments(cls, description, path)
        args = self(description.get("args", []), path)
        if "factory" in description:
            return partial(cls, *args, **options) if args or options else cls
        try:
            found = cls(*args, **options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise Unknown(f"{path} ({in_words(description)}: {error})") from error
        for key, value in description.get("attributes", {}).items():
            if isinstance(value, PLAIN) and isinstance(found, nn.Module) and key not in options and key[:1] != "_":
                setattr(found, key, value)
        if isinstance(found, nn.Module):
            self.built[path] = found
        return found

    def arguments(self, cls: type, description: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Return the arguments of a class; those of one that does not keep them, as an activation, are attributes."""
        names, attributes = inspect.signature(cls).parameters, description.get("attributes", {})
        options = description.get("options") or {name: v for name, v in attributes.items() if name in names}
        found, unknown = {}, []
        for name, value in options.items():
            try:
                found[name] = self(value, join(path, name))
            except Unknown as error:
                unknown.append(str(error))
        if unknown:
            raise Unknown(", ".join(unknown))
        return found


def rebuild(settings: Mapping[str, Any], weights: Mapping[str, Tensor], where: str) -> Program:
    """Build the program of a run of ``fit`` and load its weights.

    Args:
        settings: the settings in its ``config.json``
        weights: the weights by name
        where: the folder, for error messages

    Raises:
        ValueError: a part is not the library's; the message says which, and how to load the weights into a program
            that you build yourself.
    """
    hint = (
        "Build the program as you did for training, and load its weights by "
        "program.load_state_dict(safetensors.torch.load_file(run_dir / 'weights.safetensors'))"
    )
    try:
        description, shared = settings["program"], settings["shared"]
        with fork_rng(seed=0):
            program = Rebuilder()(description, "")
        if not isinstance(program, Program):
            raise TypeError(f"the program is {in_words(description)}")
        kinds = {t.dtype for t in weights.values() if t.is_floating_point()}
        program = program.to(*kinds) if len(kinds) == 1 else program
        changed = [text for text in differences({"": description}, {"": describe(program)}) if is_change(text)]
    except Unknown as error:
        raise ValueError(
            f"run_dir: expected parts of this library, whose names are enough to build them again, got "
            f"{str(error).lstrip()} in {where}. {hint}"
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{where}/config.json: expected a description of a program, but {error}. {hint}") from error
    if changed or shared_parameters(program) != shared:
        what = ", ".join(changed[:3]) or "parameters that share memory"
        raise ValueError(f"run_dir: {where} has a program that was changed after it was built: {what}. {hint}")
    return program


def is_change(text: str) -> bool:
    """Whether a difference is more than the values of a tensor, or an option that a later version has added."""
    return not text.startswith("other values of ") and " nothing (now " not in text
