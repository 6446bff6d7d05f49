"""Run modules with other tensors in place of their parameters and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["functional_call", "substituted", "tensors_of"]


def tensors_of(modules: Sequence[nn.Module]) -> list[Tensor]:
    """Return all parameters and buffers, each shared one once."""
    return list({id(t): t for place in places(modules) for t in place.values() if t is not None}.values())


@contextmanager
def substituted(modules: Sequence[nn.Module], new: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Put other tensors in place of parameters and buffers, and put the own ones back on leaving.

    A tensor that several modules share, or a module that appears under several names, is substituted everywhere at
    once. (``torch.func.functional_call`` leaves the substitutes in a module that has two names.)

    Args:
        modules: the modules, with all of their submodules
        new: from a parameter or buffer to the tensor that takes its place
    """
    replacement = {id(old): t for old, t in new.items()}
    own = [(place, name, t) for place in places(modules) for name, t in place.items() if id(t) in replacement]
    try:
        for place, name, t in own:
            place[name] = replacement[id(t)]
        yield
    finally:
        for place, name, t in own:
            place[name] = t


def functional_call(
    module: nn.Module, tensors: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Call a module with other parameters and buffers, given by name; a shared one needs one of its names.

    Example:
        >>> import torch
        >>> layer = nn.Linear(1, 1)
        >>> twice = nn.Sequential(layer, layer)
        >>> zeros = {"0.weight": torch.zeros(1, 1), "0.bias": torch.ones(1)}
        >>> functional_call(twice, zeros, (torch.rand(1),)), type(layer.weight).__name__
        (tensor([1.]), 'Parameter')
    """
    named = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    with substituted([module], {named[name]: t for name, t in tensors.items()}):
        return module(*args, **(kwargs or {}))


def places(modules: Sequence[nn.Module]) -> list[dict[str, Tensor | None]]:
    """Return the dictionaries that hold parameters and buffers, those of a shared module once."""
    found = {id(module): module for root in modules for module in root.modules()}
    return [place for module in found.values() for place in (module._parameters, module._buffers)]
