"""Monotone rational-quadratic splines."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

__all__ = ["rational_spline"]

#: Smallest width and height of a bin as a share of the interval, and smallest slope at a knot.
MINIMUM = 1e-3


def rational_spline(x: Tensor, raw: Tensor, bound: float, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""Map each number by an increasing spline on [-bound, bound] and by the identity outside.

    References:
        Neural spline flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Args:
        x: numbers, ``(*batch,)``
        raw: unnormalized widths and heights of the bins and slopes between them, any real numbers,
            ``(*batch, 3 * bins - 1)``; zeros give the identity
        bound: end of the spline
        inverse: whether to apply the inverse map

    Returns:
        The images and the log-slopes of the map in the chosen direction, of the shape of ``x``.
    """
    bins = (raw.shape[-1] + 1) // 3
    width, height, slope = raw.split([bins, bins, bins - 1], -1)
    knots_x, knots_y = knots(width, bound), knots(height, bound)
    # a slope of 1 at the ends joins the identity smoothly
    slope = pad(MINIMUM + softplus(slope + math.log(math.expm1(1 - MINIMUM))), (1, 1), value=1.0)

    inside = x.abs() < bound
    at = x.clamp(-bound, bound)
    entry = knots_y if inverse else knots_x
    bin = (at.unsqueeze(-1) >= entry[..., 1:-1]).sum(-1, keepdim=True)

    def of(values: Tensor, index: Tensor) -> Tensor:
        return values.expand(*index.shape[:-1], -1).gather(-1, index).squeeze(-1)

    x0, x1, y0, y1 = of(knots_x, bin), of(knots_x, bin + 1), of(knots_y, bin), of(knots_y, bin + 1)
    d0, d1 = of(slope, bin), of(slope, bin + 1)
    w, h = x1 - x0, y1 - y0
    chord = h / w
    bend = d0 + d1 - 2 * chord
    if inverse:
        rise = at - y0
        a, b, c = h * (chord - d0) + rise * bend, h * d0 - rise * bend, -chord * rise
        # this form of the root does not subtract nearly equal numbers
        t = (2 * c / (-b - torch.sqrt((b.square() - 4 * a * c).clamp(min=0)))).clamp(0, 1)
    else:
        t = ((at - x0) / w).clamp(0, 1)
    u = t * (1 - t)
    below = chord + bend * u
    log_slope = 2 * chord.log() + torch.log(d1 * t.square() + 2 * chord * u + d0 * (1 - t).square()) - 2 * below.log()
    image = x0 + t * w if inverse else y0 + h * (chord * t.square() + d0 * u) / below
    log_slope = torch.where(inside, -log_slope if inverse else log_slope, torch.zeros_like(log_slope))
    return torch.where(inside, image, x), log_slope


def knots(raw: Tensor, bound: float) -> Tensor:
    """Return ``bins + 1`` increasing numbers from -bound to bound."""
    bins = raw.shape[-1]
    share = MINIMUM + (1 - MINIMUM * bins) * torch.softmax(raw, -1)
    inner = bound * (2 * share.cumsum(-1)[..., :-1] - 1)
    return pad(pad(inner, (1, 0), value=-bound), (0, 1), value=bound)
