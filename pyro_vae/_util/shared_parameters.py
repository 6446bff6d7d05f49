"""Parameters of a module with several names."""

from __future__ import annotations

from torch import nn

__all__ = ["shared_parameters"]


def shared_parameters(module: nn.Module) -> list[list[str]]:
    """Return the names of each parameter that has several.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> shared_parameters(nn.Sequential(layer, nn.ReLU(), layer))
        [['0.weight', '2.weight']]
    """
    names: dict[int, list[str]] = {}
    for name, p in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    return [found for found in names.values() if len(found) > 1]
