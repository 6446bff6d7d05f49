"""How much a tutorial computes, and where its figures go.

``python tutorials/01_....py`` takes at most three minutes on two CPU cores, ``--full`` takes MNIST and the published
budget that the head of the tutorial names, which may be days, ``--full --share 0.03`` that part of its epochs (with
all of its schedules shortened likewise), ``--smoke`` shortens steps and data. ``--walk`` is for tests: what ``--full``
takes, in the amounts of ``--smoke``, so that a fault on the way of ``--full`` shows in a minute. Notebooks have no
command line: ``PYRO_VAE_TUTORIAL=smoke`` (or ``full``) and ``PYRO_VAE_SHARE=0.03`` in the environment do the same.
Long trainings of ``--full`` are kept in folders beside its figures: after an interruption the same command goes on.
Figures go into ``figures/``, unless ``PYRO_VAE_FIGURES`` names a folder.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["amount", "epochs", "figure", "kept", "pick"]

#: Of one figure, so that the repository stays small.
MOST_BYTES = 150_000
MODES = ("smoke", "default", "full", "walk")
IN_NOTEBOOK = "ipykernel" in sys.modules


def part(text: str) -> Fraction:
    """Read a share: exact, so that 0.07 of 100 epochs are 7."""
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and at most 1, such as 0.03, got {text!r}")
    return share


def chosen() -> tuple[str, Fraction]:
    """Return the mode that the command line asks for, or else the environment, and the share of its epochs."""
    mode = os.environ.get("PYRO_VAE_TUTORIAL", "default")
    if mode not in MODES:
        raise ValueError(f"PYRO_VAE_TUTORIAL: expected one of {', '.join(MODES)}, got {mode!r}")
    try:
        share = part(os.environ.get("PYRO_VAE_SHARE", "1"))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"PYRO_VAE_SHARE: {error}") from None
    if IN_NOTEBOOK:
        return mode, share
    parser = argparse.ArgumentParser(description="Run a tutorial, in less than three minutes on two CPU cores.")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--smoke", dest="mode", action="store_const", const="smoke", help="a few seconds, for tests")
    group.add_argument("--full", dest="mode", action="store_const", const="full", help="MNIST, as its head says")
    group.add_argument("--walk", dest="mode", action="store_const", const="walk", help="the way of --full, for tests")
    parser.add_argument("--share", type=part, metavar="S", help="with --full: the share of its epochs, such as 0.03")
    asked = parser.parse_args()
    mode = asked.mode or mode
    if asked.share is not None and mode != "full":
        parser.error("argument --share: only --full has a budget to take a share of")
    return mode, asked.share or share


def folder() -> Path:
    """Return the folder for figures: only the default mode writes over those of the repository."""
    if "PYRO_VAE_FIGURES" in os.environ:
        return Path(os.environ["PYRO_VAE_FIGURES"])
    figures = Path(__file__).parents[1] / "figures"
    if MODE in ("smoke", "walk"):
        return Path(tempfile.mkdtemp(prefix="figures-"))
    return figures if MODE == "default" else figures / MODE


MODE, SHARE = chosen()
FIGURES = folder()


def pick(*, smoke: Any, default: Any, full: Any) -> Any:
    """Return *what* the mode takes: data, a network, the settings that are compared."""
    return {"smoke": smoke, "default": default, "full": full, "walk": full}[MODE]


def amount(*, smoke: Any, default: Any, full: Any) -> Any:
    """Return *how much* of it: rows, draws, seeds."""
    return {"smoke": smoke, "default": default, "full": full, "walk": smoke}[MODE]


def epochs(*, smoke: int, default: int, full: int) -> int:
    """Return how many epochs: of those of ``--full`` the share asked for, rounded up (so at least 1)."""
    return amount(smoke=smoke, default=default, full=math.ceil(SHARE * full))


def kept(name: str) -> dict[str, Any]:
    """Return options of ``fit`` under which a training of days survives what interrupts it, with ``--full``."""
    run_dir = FIGURES / "runs" / f"{name} {float(SHARE):g}"
    return {"run_dir": run_dir, "resume": True} if MODE in ("full", "walk") else {}


def figure(drawn: Figure, name: str) -> None:
    """Write ``name``.png and, in a notebook, show it."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / f"{name}.png"
    with BytesIO() as png:
        drawn.savefig(png)
        image = Image.open(png).convert("RGB")
    # a palette, which nobody sees, takes a quarter of the bytes; smooth pictures need a smaller one
    for colours in (256, 64, 32, 16):
        image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            break
    if IN_NOTEBOOK:
        from IPython import display

        display.display(display.Image(filename=path, width=900))
