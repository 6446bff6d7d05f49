"""Style and building blocks of all figures."""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae._util.arrays import as_tensor

__all__ = [
    "COLOURS",
    "MARKERS",
    "STYLE",
    "WIDTH",
    "as_numbers",
    "histogram",
    "integer_ticks",
    "line_style",
    "panels",
    "styled",
]

#: Colours of Okabe and Ito, which can be distinguished with any common colour vision deficiency.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
#: Fewer than the colours, so that 24 combinations differ, and neighbours differ in both.
MARKERS = ("o", "^", "s", "v", "D", "P")

#: 6 inches at 150 dots per inch are the 900 pixels of a README.
WIDTH, DPI = 6.0, 150
STYLE = {
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "image.interpolation": "antialiased",
}
styled = matplotlib.rc_context(STYLE)


def as_numbers(x: Any) -> Tensor:
    """Return ``x`` as floats on the CPU."""
    return as_tensor(x).detach().cpu().float()


def panels(n: int, *, height: float = 2.8, width: float | None = None, title: str = "") -> tuple[Figure, list[Axes]]:
    """Return a figure with n panels side by side."""
    width = width or (WIDTH if n < 3 else 1.5 * WIDTH)
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10)
    every = figure.subplots(1, n, squeeze=False)[0].tolist()
    for axes in every:
        axes.grid(True)
    return figure, every


def histogram(axes: Axes, values: Tensor, i: int, **options: Any) -> None:
    """Draw a histogram of the finite values in the i-th colour."""
    finite = values[values.isfinite()].double()
    # values that are equal up to rounding have too small a range for many bins
    constant = len(finite) == 0 or finite.max() - finite.min() <= 1e-6 * finite.abs().max()
    axes.hist(finite.tolist(), bins=1 if constant else 30, color=COLOURS[i], alpha=0.75, **options)


def integer_ticks(*axes: Axis) -> None:
    """Put ticks on integers only."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def line_style(i: int, size: float = 4.0) -> dict[str, Any]:
    """Return colour and marker of the i-th series."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": size}
