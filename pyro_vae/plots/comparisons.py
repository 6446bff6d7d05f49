"""What the estimator laboratory found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, styled

__all__ = ["comparison", "training_comparison"]


@styled
def comparison(found: Any) -> Figure:
    """Draw gap, signal-to-noise ratios, own bias and cost of each estimator, a row each in all four panels.

    Args:
        found: the result of ``compare_estimators``

    Returns:
        The figure; a point that cannot be had is left out.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.compare_estimators(toy.program, toy.draw(8), [pv.estimators.ELBO()], num_samples=20)
        >>> len(comparison(found).axes)
        4
    """
    rows = found.estimators
    figure = Figure(figsize=(WIDTH, 2.3 + 0.46 * len(rows)), layout="constrained")
    (gap, snr), (bias, cost) = figure.subplots(2, 2, sharey=True)
    draw(gap, [r.gap for r in rows], [4 * r.gap_error for r in rows], 0)
    gap.axvline(0.0, color="black", linewidth=0.8)
    gap.set(title="Evidence less bound", xlabel="nats per datum\n(bars: 4 s.e.)")
    for i, group in enumerate(("guide", "model")):
        parts = [getattr(r, group) for r in rows]
        draw(snr, [p.snr for p in parts], None, i, group)
        draw(bias, [p.own_bias for p in parts], [4 * p.own_bias_error for p in parts], i, group)
    snr.set(title="Signal-to-noise ratio", xlabel="of the gradient,\nmean over parameters", xscale="log")
    snr.xaxis.set_major_formatter("{x:g}")
    snr.xaxis.set_minor_locator(LogLocator(subs=(3,)))
    snr.xaxis.set_minor_formatter("{x:g}")
    bias.axvline(0.0, color="black", linewidth=0.8)
    bias.set(title="Bias to own objective", xlabel="relative\n(bars: 4 s.e.)")
    draw(cost, [r.milliseconds for r in rows], None, 2)
    cost.set(title="Time of a step", xlabel="milliseconds")
    cost.set_xlim(0.0, 1.1 * max((r.milliseconds for r in rows if math.isfinite(r.milliseconds)), default=1.0))
    gap.set_yticks(range(len(rows)), [r.name for r in rows])
    gap.set_ylim(len(rows) - 0.5, -0.5)
    for axes in (gap, snr, bias, cost):
        axes.grid(True)
    handles, labels = snr.get_legend_handles_labels()
    figure.legend(handles, labels, title="parameters of the", loc="outside lower center", ncols=2)
    return figure


def draw(axes: Axes, values: Sequence[float], errors: Sequence[float] | None, look: int, label: str = "") -> None:
    """Draw one point a row, those of a second series a little lower."""
    places = [i + (0.0 if not label else 0.14 * (2 * look - 1)) for i in range(len(values))]
    known = [i for i, v in enumerate(values) if math.isfinite(v)]
    axes.errorbar(
        [values[i] for i in known],
        [places[i] for i in known],
        xerr=None if errors is None else [0.0 if math.isnan(errors[i]) else errors[i] for i in known],
        color=COLOURS[look],
        marker=MARKERS[look],
        markersize=4.5,
        linestyle="none",
        label=label or None,
    )


@styled
def training_comparison(found: Any) -> Figure:
    """Draw held-out log-likelihoods against steps and against seconds.

    Args:
        found: the result of ``train_under``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.train_under(
        ...     toy.program,
        ...     toy.draw(64),
        ...     [pv.estimators.ELBO()],
        ...     budget=pv.evaluation.Steps(4),
        ...     valid=toy.draw(16),
        ...     num_points=2,
        ... )
        >>> [axes.get_xlabel() for axes in training_comparison(found).axes]
        ['steps', 'seconds in steps']
    """
    figure = Figure(figsize=(1.5 * WIDTH, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, curve in enumerate(found.curves):
        look = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "markersize": 3.5,
            "linestyle": "-" if i < len(COLOURS) else "--",
        }
        values = [p.log_likelihood for p in curve.points]
        left.plot([p.steps for p in curve.points], values, label=curve.name, **look)
        right.plot([p.seconds for p in curve.points], values, **look)
    # what the first weights give would press all that follows into one line
    later = [p.log_likelihood for c in found.curves for p in c.points[1:] if math.isfinite(p.log_likelihood)]
    if later:
        margin = 0.05 * (max(later) - min(later)) or 1.0
        left.set_ylim(min(later) - margin, max(later) + margin)
    left.set(xlabel="steps", ylabel="nats per datum")
    right.set(xlabel="seconds in steps")
    figure.suptitle(
        f"Held-out log-likelihood in training, {found.num_particles:,} particles; {found.budget} each", fontsize=10
    )
    for axes in (left, right):
        axes.grid(True)
    figure.legend(loc="outside right upper")
    return figure
