"""Version of this package, and those of the libraries that its files depend on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version

__all__ = ["VERSION", "versions"]

VERSION = "0.1.0"


@cache  # reading the metadata of a library takes milliseconds
def versions() -> dict[str, str]:
    """Return the versions of this package, Python and the libraries that decide what a checkpoint contains."""
    libraries = ("torch", "pyro-ppl", "numpy", "safetensors")
    return {"pyro_vae": VERSION, "python": platform.python_version(), **{name: version(name) for name in libraries}}
