"""The command ``pyro-vae list``."""

from __future__ import annotations

from pyro_vae.cli.choices import Choices, first_line, look_up, table
from pyro_vae.config import parts
from pyro_vae.data.sources import LOADERS


def list_shelves(argv: list[str]) -> int:
    """List everything that can be chosen."""
    choices = Choices("list", argv, "[KIND ...] ")
    choices.option("kinds", nargs="*", metavar="KIND", help="what to list, such as priors; everything by default")
    kinds = choices.parse().kinds
    shelves = {f"{kind}s".replace("ys", "ies").replace("ss", "s"): shelf for kind, shelf in parts.shelves().items()}
    shelves["data"] = LOADERS
    shown = {kind: look_up("KIND", kind.replace("-", "_"), shelves) for kind in kinds} if kinds else shelves
    for title, shelf in shown.items():
        print(f"{title.replace('_', ' ')}\n{table({name: first_line(found) for name, found in shelf.items()})}\n")
    return 0
