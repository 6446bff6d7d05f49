"""The command ``pyro-vae report``: a finished run on one page."""

from __future__ import annotations

from pathlib import Path

from pyro_vae import pages
from pyro_vae.cli.choices import Choices
from pyro_vae.cli.shared import write_page

__all__ = ["report"]


def report(argv: list[str]) -> int:
    """Write the configuration, tables and figures of a run as one page."""
    choices = Choices("report", argv)
    choices.parser.usage = "%(prog)s RUN [options]"
    choices.parser.add_argument("run", metavar="RUN", help="folder of a run of `pyro-vae train`")
    choices.parser.add_argument(
        "--output", type=str | None, help="where to write the page; RUN/report.html by default"
    )
    settings = choices.parse()
    write_page(pages.report(settings.run), Path(settings.output or Path(settings.run) / "report.html"))
    return 0
