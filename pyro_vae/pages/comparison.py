"""A comparison of estimators on one page: what is best, figures, and tables that can be sorted."""

from __future__ import annotations

import io
from html import escape
from typing import TYPE_CHECKING, Any

from pyro_vae.pages.page import page
from pyro_vae.pages.report import image, section, table

if TYPE_CHECKING:
    from pyro_vae.evaluation.result import Result

__all__ = ["comparison"]


def comparison(title: str, **results: Result) -> str:
    """Return a page of results by the titles of their sections, each with its notes, figure and sortable tables.

    Args:
        title: title of the page
        results: such as those of ``compare_estimators`` and ``train_under``; an underscore in a name is a space

    Returns:
        The page as HTML, with the figures inside.

    Example:
        >>> import pyro_vae as pv
        >>> toy, E = pv.testing.LinearGaussian(off=0.1), pv.estimators
        >>> found = pv.evaluation.compare_estimators(toy.program, toy.draw(8), [E.ELBO(), E.IWAE()], num_samples=8)
        >>> "highest bound: IWAE (5)" in comparison("Two bounds", one_batch=found)
        True
    """
    sections = [section(name.replace("_", " ").capitalize(), content(name, found)) for name, found in results.items()]
    body = [f"<header><h1>{escape(title)}</h1></header>\n<main>", *sections, "</main>"]
    return page(title, "\n".join(body), styles=["report.css"], scripts=["sort.js"])


def content(name: str, found: Any) -> str:
    """Return heading, notes, figure and tables of a result."""
    png = io.BytesIO()
    found.plot().savefig(png, format="png")
    lines = [f'<p class="note">{escape(found.heading())}</p>']
    lines += [f"<p>{escape(line.strip())}</p>" for line in found.notes().splitlines()]
    return "\n".join(
        [*lines, image(png.getvalue(), f"figure of {name.replace('_', ' ')}"), *map(table, found.tables())]
    )
