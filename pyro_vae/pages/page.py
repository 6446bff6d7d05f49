"""The frame of every page: one HTML file with its styles, scripts and data."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

__all__ = ["asset", "page"]

#: Nothing may be loaded, except images inside the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, body: str, *, data: Any = None, styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """Return a complete HTML page that loads nothing.

    Args:
        title: title of the window
        body: HTML, in which text from files is escaped already
        data: JSON values for the scripts, in an element with the id ``data``
        styles: names of style sheets in this folder, in addition to the shared one
        scripts: names of scripts in this folder

    Returns:
        The HTML.

    Example:
        >>> page("Two < three", "<p>Nothing</p>").count("Two &lt; three")
        1
    """
    # no text in the data can close the element
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            *(f"<style>\n{asset(name)}</style>" for name in ("page.css", *styles)),
            "</head>\n<body>",
            body,
            *([] if data is None else [f'<script type="application/json" id="data">{text}</script>']),
            *(f"<script>\n{asset(name)}</script>" for name in scripts),
            "</body>\n</html>\n",
        ]
    )


def asset(name: str) -> str:
    """Return the text of a file in this folder."""
    return (files("pyro_vae.pages") / name).read_text(encoding="utf-8")
