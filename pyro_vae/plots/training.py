"""Training curves, and comparisons of estimators."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pyro_vae.plots.style import COLOURS, WIDTH, integer_ticks, line_style, panels, styled

__all__ = ["comparison", "training_comparison", "training_curve"]


@styled
def training_curve(history: Iterable[Mapping[str, Any]]) -> Figure:
    """Plot the bound and its terms against the epoch.

    Args:
        history: a ``History``, or rows with ``epoch``, ``loss`` and, where known, ``valid_bound``,
            ``reconstruction``, ``kl`` and ``beta``; all in mean nats per example

    Returns:
        The figure; without its second panel if no row has a reconstruction or KL.

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

    def lines(**keys: str) -> dict[str, list[float]]:
        found = {name: [row.get(key) for row in rows] for name, key in keys.items()}
        found = {name: [math.nan if v is None else v for v in values] for name, values in found.items()}
        return {name: values for name, values in found.items() if not all(map(math.isnan, values))}

    weighted = any(row.get("beta", 1.0) != 1.0 for row in rows)
    bounds = lines(training="loss", validation="valid_bound")
    training = [-value for value in bounds.pop("training")]
    bounds = {"training (weighted by beta)" if weighted else "training": training, **bounds}
    titled = {"Bound (higher is better)": bounds, "Terms in training": lines(reconstruction="reconstruction", KL="kl")}
    titled = {title: values for title, values in titled.items() if values}
    figure, every = panels(len(titled), height=2.9)
    colours = iter(COLOURS)
    # a line of few points is hardly visible
    marker = "o" if len(rows) < 5 else None
    for axes, (title, values) in zip(every, titled.items(), strict=True):
        for name, line in values.items():
            axes.plot(epochs, line, color=next(colours), label=name, marker=marker)
        axes.set(title=title, xlabel="epoch", ylabel="nats per example")
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        integer_ticks(axes.xaxis)
    return figure


@styled
def comparison(result: Any) -> Figure:
    """Plot gap, signal-to-noise ratios, bias and cost of each estimator, one row per estimator in all four panels.

    Args:
        result: the result of ``compare_estimators``

    Returns:
        The figure, without the values that are unknown.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.compare_estimators(toy.program, toy.draw(8), [pv.estimators.ELBO()], num_samples=20)
        >>> len(comparison(found).axes)
        4
    """
    rows = result.estimators
    figure = Figure(figsize=(WIDTH, 2.3 + 0.46 * len(rows)), layout="constrained")
    (gap, snr), (bias, cost) = figure.subplots(2, 2, sharey=True)
    draw_points(gap, [r.gap for r in rows], [4 * r.gap_error for r in rows], 0)
    gap.set(title="Evidence minus bound", xlabel="nats per example\n(bars: 4 standard errors)")
    for i, group in enumerate(("guide", "model")):
        parts = [getattr(r, group) for r in rows]
        draw_points(snr, [p.snr for p in parts], None, i, group)
        draw_points(bias, [p.own_bias for p in parts], [4 * p.own_bias_error for p in parts], i, group)
    snr.set(title="Signal-to-noise ratio", xlabel="of the gradient (higher is better),\nmean over parameters")
    snr.set_xscale("log")
    snr.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    snr.xaxis.set_major_formatter("{x:g}")
    snr.xaxis.set_minor_locator(NullLocator())
    bias.set(title="Bias to own objective", xlabel="relative to the gradient\n(bars: 4 standard errors)")
    draw_points(cost, [r.milliseconds for r in rows], None, 2)
    cost.set(title="Time per step", xlabel="milliseconds")
    cost.set_xlim(0.0, 1.1 * max((r.milliseconds for r in rows if math.isfinite(r.milliseconds)), default=1.0))
    gap.set_yticks(range(len(rows)), [r.name for r in rows])
    gap.set_ylim(len(rows) - 0.5, -0.5)
    for axes in (gap, bias):
        axes.axvline(0.0, color="black", linewidth=0.8)
    for axes in (gap, snr, bias, cost):
        axes.grid(True)
    handles, labels = snr.get_legend_handles_labels()
    figure.legend(handles, labels, title="parameters of the", loc="outside lower center", ncols=2)
    return figure


def draw_points(axes: Axes, values: Sequence[float], errors: Sequence[float] | None, i: int, label: str = "") -> None:
    """Draw one point per row in the i-th style; labelled series are shifted to avoid overlap."""
    shift = 0.14 * (2 * i - 1) if label else 0.0
    errors = [0.0 if math.isnan(e) else e for e in errors or [0.0] * len(values)]
    known = [(v, row + shift, e) for row, (v, e) in enumerate(zip(values, errors, strict=True)) if math.isfinite(v)]
    if known:
        x, y, error = zip(*known, strict=True)
        axes.errorbar(x, y, xerr=error, linestyle="none", label=label or None, **line_style(i, 4.5))


@styled
def training_comparison(result: Any) -> Figure:
    """Plot held-out log-likelihoods against training steps and against training time.

    Args:
        result: the result of ``train_under``

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
        ['steps', 'training time (seconds)']
    """
    title = f"Held-out log-likelihood in training, {result.num_particles:,} particles; {result.budget} each"
    figure, (left, right) = panels(2, height=3.8, width=1.5 * WIDTH, title=title)
    right.sharey(left)
    right.tick_params(labelleft=False)
    for i, curve in enumerate(result.curves):
        look = {**line_style(i, 3.5), "linestyle": "-" if i < len(COLOURS) else "--"}
        values = [p.log_likelihood for p in curve.points]
        left.plot([p.steps for p in curve.points], values, label=curve.name, **look)
        right.plot([p.seconds for p in curve.points], values, **look)
    # the value of the initial weights would flatten all later ones
    later = [p.log_likelihood for c in result.curves for p in c.points[1:] if math.isfinite(p.log_likelihood)]
    if later:
        margin = 0.05 * (max(later) - min(later)) or 1.0
        left.set_ylim(min(later) - margin, max(later) + margin)
    left.set(xlabel="steps", ylabel="nats per example (higher is better)")
    right.set_xlabel("training time (seconds)")
    figure.legend(loc="outside right upper")
    return figure
