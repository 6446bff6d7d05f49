"""The command ``pyro-vae report``."""

from __future__ import annotations

from pathlib import Path

from pyro_vae import pages
from pyro_vae.cli.shared import for_run, write_page

__all__ = ["report"]


def report(argv: list[str]) -> int:
    """Write the configuration, tables and figures of a run to one HTML page."""
    choices = for_run("report", argv)
    choices.option("--output", type=str | None, help="path of the page; RUN/report.html by default")
    settings = choices.parse()
    write_page(pages.report(settings.run), Path(settings.output or Path(settings.run) / "report.html"))
    return 0
