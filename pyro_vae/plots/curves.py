"""Training curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.plots.style import COLOURS, WIDTH, styled

__all__ = ["training_curve"]


@styled
def training_curve(history: Iterable[Mapping[str, Any]]) -> Figure:
    """Draw the bound, and what it is made of, against the epoch.

    Args:
        history: a ``History``, or rows with ``epoch``, ``loss`` and, where known, ``valid_bound``,
            ``reconstruction``, ``kl`` and ``beta``; all in mean nats per datum

    Returns:
        The figure; its second panel is left out where no row has a reconstruction or divergence.

    Raises:
        ValueError: there is no row.

    Example:
        >>> rows = [{"epoch": 0, "loss": 9.0, "kl": 1.0}, {"epoch": 1, "loss": 8.0, "kl": 2.0}]
        >>> [axes.get_xlabel() for axes in training_curve(rows).axes]
        ['epoch', 'epoch']
    """
    rows = list(history)
    if not rows:
        raise ValueError("history: expected at least one epoch, got none")
    epochs = [row["epoch"] for row in rows]

    def column(key: str, sign: float = 1.0) -> list[float]:
        return [sign * row[key] if row.get(key) is not None else math.nan for row in rows]

    weighed = any(row.get("beta", 1.0) != 1.0 for row in rows)
    bounds = {
        "training (under its beta)" if weighed else "training": column("loss", -1.0),
        "validation": column("valid_bound"),
    }
    parts = {"reconstruction": column("reconstruction"), "KL": column("kl")}
    panels = [("Bound", bounds), ("Its parts, in training", parts)]
    panels = [panel for panel in panels if not all(map(math.isnan, sum(panel[1].values(), [])))]
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    colours = iter(COLOURS)
    # a line through few points is seen by them alone
    mark = "o" if len(rows) < 5 else None
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, values in lines.items():
            if all(map(math.isnan, values)):
                continue
            axes.plot(epochs, values, color=next(colours), label=name, marker=mark)
        axes.set(title=title, xlabel="epoch", ylabel="nats per datum")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.grid(True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure
