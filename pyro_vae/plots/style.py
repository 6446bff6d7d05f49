"""One look for all figures."""

from __future__ import annotations

from typing import Any

import matplotlib
import torch
from torch import Tensor

__all__ = ["COLOURS", "MARKERS", "STYLE", "WIDTH", "as_numbers", "styled"]

#: Okabe and Ito's colours, which people with any of the common colour deficiencies tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
#: Of another number than the colours, so that 24 classes differ, and neighbours differ in both.
MARKERS = ("o", "^", "s", "v", "D", "P")

#: 6 inches at 150 dots an inch are the 900 pixels of a README.
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
    return torch.as_tensor(x).detach().cpu().float()
