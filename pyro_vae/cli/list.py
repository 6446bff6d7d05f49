"""The command ``pyro-vae list``."""

from __future__ import annotations

from pyro_vae.cli.choices import Choices, first_line, table
from pyro_vae.config import parts
from pyro_vae.data.sources import LOADERS


def list_shelves(argv: list[str]) -> int:
    """List everything that can be chosen."""
    Choices("list", argv).parse()
    shelves = {f"{kind.replace('_', ' ')}s".replace("ys", "ies"): shelf for kind, shelf in parts.shelves().items()}
    for title, shelf in {**shelves, "data sets": LOADERS}.items():
        print(f"{title}\n{table({name: first_line(found) for name, found in shelf.items()})}\n")
    return 0
