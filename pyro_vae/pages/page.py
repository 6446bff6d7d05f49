"""What every page is made of."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

__all__ = ["asset", "page"]

#: No address but those of images inside the page may be asked for anything.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, body: str, *, data: Any = None, styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """Return a whole page.

    Args:
        title: of the window
        body: HTML, what comes from files escaped in it
        data: JSON values for the scripts, in an element with the id ``data``
        styles: names of style sheets beside this file, beyond the one that all pages share
        scripts: names of scripts beside this file

    Returns:
        The HTML, without an address of anything outside of it.

    Example:
        >>> page("Two < three", "<p>Nothing</p>").count("Two &lt; three")
        1
    """
    # no text inside of the data can end the element that holds them
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
    """Return the text of a file beside this one."""
    return (files("pyro_vae.pages") / name).read_text(encoding="utf-8")
