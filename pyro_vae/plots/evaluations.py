"""Likelihoods, bounds and latents."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, styled

__all__ = [
    "histogram",
    "inference_gaps",
    "latent_units",
    "log_likelihoods",
    "marginal_bounds",
    "panels",
    "rate_distortion",
]


def panels(n: int, *, height: float = 2.8, width: float | None = None, title: str = "") -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side."""
    width = width or (WIDTH if n < 3 else 1.5 * WIDTH)
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10)
    every = figure.subplots(1, n, squeeze=False)[0].tolist()
    for axes in every:
        axes.grid(True)
    return figure, every


def histogram(axes: Axes, values: Tensor, look: int, **options: Any) -> None:
    """Draw how finite values spread."""
    axes.hist(values[values.isfinite()].tolist(), bins=30, color=COLOURS[look], alpha=0.75, **options)


@styled
def log_likelihoods(found: Any) -> Figure:
    """Draw the log-likelihoods of the data, their effective sample sizes and the tails of their weights.

    Args:
        found: the result of ``log_likelihood``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.log_likelihood(toy.program, toy.draw(50), num_particles=50)
        >>> [axes.get_xlabel() for axes in log_likelihoods(found).axes]
        ['log p(x) (nats)', 'particles', 'Pareto k of the weights']
    """
    figure, (value, ess, tail) = panels(3, title=f"Log-likelihood, {found.num_particles:,} particles")
    histogram(value, found.per_example, 0)
    value.axvline(found.mean, color="black", linewidth=0.8)
    value.set(title=f"mean {found.mean:.2f}", xlabel="log p(x) (nats)", ylabel="data")
    histogram(ess, found.ess, 2)
    ess.set(title="Effective sample size", xlabel="particles", xlim=(0, None))
    histogram(tail, found.pareto_k, 1)
    tail.axvline(0.7, color="black", linewidth=0.8, linestyle="--")
    heavy = "unknown" if math.isnan(found.heavy) else f"{found.heavy:.1%} of the data above 0.7"
    tail.set(title=heavy, xlabel="Pareto k of the weights")
    return figure


@styled
def marginal_bounds(found: Any) -> Figure:
    """Draw both bounds of each simulated datum, and the lower bounds of the given data.

    Args:
        found: the result of ``marginal_bounds``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.marginal_bounds(toy.program, toy.draw(4), num_steps=10, num_simulated=4)
        >>> len(marginal_bounds(found).axes)
        2
    """
    made = found.simulated
    figure, every = panels(1 if made is None else 2, title=found.source.capitalize())
    histogram(every[0], found.per_example, 0)
    every[0].set(title=f"Given data: mean {found.mean:.2f}", xlabel="lower bound on log p(x) (nats)", ylabel="data")
    if made is not None:
        gap, error = made.gap.per_example.tolist(), (4 * made.gap.per_example_error).tolist()
        every[1].errorbar(range(len(gap)), gap, yerr=error, color=COLOURS[3], marker="o", linestyle="none")
        every[1].axhline(0.0, color="black", linewidth=0.8)
        every[1].set(title="Simulated data: upper - lower", xlabel="datum", ylabel="nats (bars: 4 s.e.)")
        every[1].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return figure


@styled
def inference_gaps(found: Any) -> Figure:
    """Draw the gaps of each datum as boxes, with their means.

    Args:
        found: the result of ``inference_gaps``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.inference_gaps(toy.program, toy.draw(8), evidence=toy.log_evidence, num_steps=50)
        >>> inference_gaps(found).axes[0].get_xlabel()
        'nats per datum'
    """
    figure, (axes,) = panels(1, title=f"Inference gaps of {len(found.inference.per_example):,} data")
    names = list(found.gaps)
    looks = {"markerfacecolor": COLOURS[3], "markeredgecolor": "none", "marker": "D"}
    drawn = axes.boxplot(
        [found.gaps[name].per_example.tolist() for name in names],
        orientation="horizontal",
        showmeans=True,
        meanprops=looks,
        medianprops={"color": COLOURS[0]},
        flierprops={"markersize": 3, "markeredgecolor": "#888888"},
    )
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.invert_yaxis()
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("nats per datum")
    axes.legend([drawn["means"][0], drawn["medians"][0]], ["mean", "median"])
    return figure


@styled
def latent_units(found: Any) -> Figure:
    """Draw divergence and variance of the posterior mean of each unit, in falling order.

    Args:
        found: the result of ``latents``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> len(latent_units(pv.evaluation.latents(toy.program, toy.draw(100))).axes)
        2
    """
    active = ", ".join(f"{n} of {len(found.variance[name])}" for name, n in found.active.items())
    figure, (kl, variance) = panels(2, title=f"Latent units, {found.num_examples:,} data: {active} active")
    for i, (name, values) in enumerate(found.variance.items()):
        look = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "markersize": 4,
            "label": name,
        }
        variance.plot(range(1, len(values) + 1), values.sort(descending=True).values.clamp(min=1e-8).tolist(), **look)
        each = found.kl_per_dimension[name]
        kl.plot(range(1, len(each) + 1), each.sort(descending=True).values.tolist(), **look)
    variance.axhline(found.threshold, color="black", linewidth=0.8, linestyle="--")
    variance.set(title="Variance of the posterior mean", xlabel="unit, in falling order", yscale="log")
    kl.set(title="Divergence from the prior", xlabel="unit, in falling order", ylabel="nats per datum")
    kl.set_ylim(0, 1.05 * kl.get_ylim()[1])
    for axes in (kl, variance):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    if len(found.variance) > 1:
        kl.legend(title="site")
    return figure


@styled
def rate_distortion(found: Any) -> Figure:
    """Draw the programs as points of the plane of rate and distortion.

    Args:
        found: the result of ``rate_distortion``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.rate_distortion({1.0: toy.program}, toy.draw(50))
        >>> rate_distortion(found).axes[0].get_xlabel()
        'rate: KL from the prior (nats per datum)'
    """
    figure, (axes,) = panels(1, height=3.6, title="Rate and distortion")
    rows = found.rows()
    axes.plot([r["rate"] for r in rows], [r["distortion"] for r in rows], color=COLOURS[0], marker="o")
    for r in rows:
        text = f"beta {r['beta']:g}, {r['active']} active"
        axes.annotate(text, (r["rate"], r["distortion"]), xytext=(6, 6), textcoords="offset points")
    axes.set(xlabel="rate: KL from the prior (nats per datum)", ylabel="distortion: -log p(x|z) (nats per datum)")
    axes.margins(0.2)
    return figure
