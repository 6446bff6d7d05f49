"""The unit sphere: its constraint (that of Pyro) and its area."""

from __future__ import annotations

import math

from pyro.distributions.constraints import sphere

__all__ = ["log_area", "sphere"]


def log_area(dim: int) -> float:
    r"""Return the log of the area of the unit sphere in R^dim, :math:`\log \frac{2 \pi^{n/2}}{\Gamma(n/2)}`."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)
