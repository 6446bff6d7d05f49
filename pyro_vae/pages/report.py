"""A report of a run on one page: parts, settings, training and evaluations."""

from __future__ import annotations

import base64
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pyro_vae._util.differences import in_words
from pyro_vae.config import run
from pyro_vae.pages.page import page

__all__ = ["report"]

#: Tables with more rows are summarized by the moments of their columns.
MAX_ROWS = 40

Rows = Sequence[Mapping[str, Any]]


def report(run_dir: str | Path) -> str:
    """Return a page with the configuration, tables and figures of a run.

    Args:
        run_dir: the folder of the run; ``metrics.jsonl``, ``evaluation/`` and ``figures/`` are shown if they exist

    Returns:
        The page as HTML, with the figures inside.

    Raises:
        ValueError: there is no run, or one of its files cannot be read.
    """
    folder = Path(run_dir)
    config = run.read_any(folder)
    history = read_lines(folder / "metrics.jsonl")
    parts, settings = of_fit(config["fit"]) if "fit" in config else of_train(config)
    body = [
        f"<header><h1>{escape(folder.resolve().name)}</h1><p>{escape(headline(history))}</p></header>\n<main>",
        '<div class="pair">',
        section("Parts", facts(parts)),
        section("Settings", facts(settings)),
        "</div>",
        section("Training", figure(folder / "figures" / "training.png") + table(history)),
        '<div class="pair">',
        *(
            section(path.stem.capitalize(), figure(path))
            for path in sorted((folder / "figures").glob("*.png"))
            if path.stem != "training"
        ),
        "</div>",
        *(
            section(path.stem.replace("_", " ").capitalize(), figure(path.with_suffix(".png")) + evaluated(path))
            for path in sorted((folder / "evaluation").glob("*.json"))
        ),
        "</main>",
        "<footer><p>Losses, bounds and log-likelihoods in nats per example, times in seconds.</p></footer>",
    ]
    return page(f"Run {folder.resolve().name}", "\n".join(body), styles=["report.css"])


def of_train(config: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return parts and settings of a run of ``pyro-vae train``."""
    parts = {axis: describe(config[axis]) for axis in ("program", *run.AXES) if axis in config}
    settings = {key: plain(value) for key, value in config.items() if key not in (*parts, "columns")}
    if "columns" in config:
        settings["columns"] = ", ".join(f"{c['options']['name']} ({c['name']})" for c in config["columns"])
    return parts, settings


def of_fit(config: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return parts and settings of a run of ``fit``."""
    parts = {key: in_words(config[key]) for key in ("program", "estimator", "optimizer")}
    chosen = {key: value for key, value in config.items() if key not in parts and value not in (None, False, [])}
    return parts, {key: in_words(value) for key, value in chosen.items()}


def headline(history: Rows) -> str:
    """Return the number of epochs and the best validation bound."""
    bounds = [(row["valid_bound"], row["epoch"]) for row in history if is_number(row.get("valid_bound"))]
    if not bounds:
        return f"{len(history)} epochs"
    best, epoch = max(bounds)
    return f"{len(history)} epochs; best validation bound {best:.2f} nats per example, at epoch {epoch}"


def section(title: str, content: str) -> str:
    """Return a section of the page; ``content`` is HTML."""
    return f'<section class="card"><h2>{escape(title)}</h2>\n{content}</section>'


def facts(found: Mapping[str, str]) -> str:
    """Return names and texts as a table of two columns."""
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>\n" for k, v in found.items())
    return f'<table class="facts"><tbody>\n{rows}</tbody></table>'


def table(rows: Rows) -> str:
    """Return rows of numbers and texts as a table."""
    if not rows:
        return '<p class="note">No rows yet.</p>'
    keys = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{escape(key.replace('_', ' '))}</th>" for key in keys)
    lines = ("".join(f"<td>{escape(plain(row.get(key)))}</td>" for key in keys) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    label = f"{len(rows)} rows"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def figure(path: Path) -> str:
    """Return an image as HTML, or nothing if there is no such file."""
    if not path.is_file():
        return ""
    return image(path.read_bytes(), path.stem.replace("_", " "))


def image(png: bytes, name: str) -> str:
    """Return a PNG image as HTML, with a text for those who do not see it."""
    text = base64.b64encode(png).decode()
    return f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{text}"></figure>\n'


def evaluated(path: Path) -> str:
    """Return the table of an evaluation, or the moments of its columns if it is long."""
    found = read_json(path, path.read_text(encoding="utf-8"))
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{path}: expected the rows of an evaluation. Run `pyro-vae evaluate` again, or remove the file"
        )
    if len(rows) <= MAX_ROWS:
        return table(rows)
    note = f'<p class="note">{len(rows):,} rows, all of them in {escape(path.name)}; their columns:</p>\n'
    return note + table(moments(rows))


def moments(rows: Rows) -> list[dict[str, Any]]:
    """Return mean, standard deviation, minimum, median and maximum of each column of numbers."""
    found = []
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if is_number(row.get(key))]
        if key == "example" or not values:
            continue
        found.append(
            {
                "column": key.replace("_", " "),
                "values": len(values),
                "mean": statistics.fmean(values),
                "std": statistics.pstdev(values),
                "min": min(values),
                "median": statistics.median(values),
                "max": max(values),
            }
        )
    return found


def describe(spec: Mapping[str, Any]) -> str:
    """Return a part of a configuration as Python code."""
    options = ", ".join(
        f"{name}={describe(value) if isinstance(value, dict) and 'name' in value else plain(value)}"
        for name, value in spec["options"].items()
    )
    return f"{spec['name']}({options})"


def plain(value: Any) -> str:
    """Format one value."""
    if value is None:
        return "-"
    if is_number(value) and isinstance(value, float):
        return f"{value:.5g}".replace("-", "\u2212")
    return json.dumps(value) if isinstance(value, (dict, list, bool)) else str(value)


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file of JSON lines; none if there is no such file."""
    if not path.is_file():
        return []
    rows = [read_json(path, line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not all(isinstance(row, dict) and "epoch" in row for row in rows):
        raise ValueError(f"{path}: expected one line of named values per epoch. The file is damaged")
    return rows


def read_json(path: Path, text: str) -> Any:
    """Parse JSON; errors name the file."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, but {error}") from error
