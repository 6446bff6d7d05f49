"""Likelihoods, bounds and latents."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure

from pyro_vae.plots.style import COLOURS, histogram, integer_ticks, line_style, panels, styled

__all__ = ["inference_gaps", "latent_units", "log_likelihoods", "marginal_bounds", "rate_distortion"]


@styled
def log_likelihoods(result: Any) -> Figure:
    """Plot log-likelihoods, effective sample sizes, and the tails of the importance weights.

    Args:
        result: the result of ``log_likelihood``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.log_likelihood(toy.program, toy.draw(50), num_particles=50)
        >>> [axes.get_xlabel() for axes in log_likelihoods(found).axes]
        ['log p(x) (nats)', 'particles', 'Pareto k of the weights']
    """
    figure, (value, ess, tail) = panels(3, title=f"Log-likelihood, {result.num_particles:,} particles")
    histogram(value, result.per_example, 0)
    value.axvline(result.mean, color="black", linewidth=0.8)
    value.set(title=f"Mean {result.mean:.2f} nats", xlabel="log p(x) (nats)", ylabel="examples")
    histogram(ess, result.ess, 2)
    ess.set(title="Effective sample size", xlabel="particles", xlim=(0, None))
    histogram(tail, result.pareto_k, 1)
    tail.axvline(0.7, color="black", linewidth=0.8, linestyle="--")
    heavy = "unknown" if math.isnan(result.heavy) else f"{result.heavy:.1%}"
    tail.set(title=f"Unreliable (above 0.7): {heavy}", xlabel="Pareto k of the weights")
    return figure


@styled
def marginal_bounds(result: Any) -> Figure:
    """Plot the lower bounds of the given data, and the distance of both bounds for simulated data.

    Args:
        result: the result of ``marginal_bounds``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.marginal_bounds(toy.program, toy.draw(4), num_steps=10, num_simulated=4)
        >>> len(marginal_bounds(found).axes)
        2
    """
    simulated = result.simulated
    figure, (given, *other) = panels(1 if simulated is None else 2, title=result.source.capitalize())
    histogram(given, result.per_example, 0)
    given.set(title=f"Data: mean {result.mean:.2f} nats", xlabel="lower bound on log p(x) (nats)", ylabel="examples")
    for axes in other:
        gap, error = simulated.gap.per_example.tolist(), (4 * simulated.gap.per_example_error).tolist()
        axes.errorbar(range(len(gap)), gap, yerr=error, color=COLOURS[3], marker="o", linestyle="none")
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.set(title="Upper minus lower bound (0: exact)", xlabel="simulated example")
        axes.set_ylabel("nats (bars: 4 standard errors)")
        integer_ticks(axes.xaxis)
    return figure


@styled
def inference_gaps(result: Any) -> Figure:
    """Plot boxes of the gaps over examples, with their means.

    Args:
        result: the result of ``inference_gaps``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.inference_gaps(toy.program, toy.draw(8), evidence=toy.log_evidence, num_steps=50)
        >>> inference_gaps(found).axes[0].get_xlabel()
        'nats per example'
    """
    figure, (axes,) = panels(1, title=f"Inference gaps of {len(result.inference.per_example):,} examples (0: exact)")
    names = list(result.gaps)
    drawn = axes.boxplot(
        [result.gaps[name].per_example.tolist() for name in names],
        orientation="horizontal",
        showmeans=True,
        meanprops={"markerfacecolor": COLOURS[3], "markeredgecolor": "none", "marker": "D"},
        medianprops={"color": COLOURS[0]},
        flierprops={"markersize": 3, "markeredgecolor": "#888888"},
    )
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.invert_yaxis()
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("nats per example")
    axes.legend([drawn["means"][0], drawn["medians"][0]], ["mean", "median"])
    return figure


@styled
def latent_units(result: Any) -> Figure:
    """Plot the KL divergence and the variance of the posterior mean of each unit, in decreasing order.

    Args:
        result: the result of ``latents``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> len(latent_units(pv.evaluation.latents(toy.program, toy.draw(100))).axes)
        2
    """
    active = ", ".join(f"{n} of {len(result.variance[name])}" for name, n in result.active.items())
    title = f"Active latent units (above the line): {active} ({result.num_examples:,} examples)"
    figure, (kl, variance) = panels(2, title=title)
    for i, name in enumerate(result.variance):
        for axes, values in ((kl, result.kl_per_dimension[name]), (variance, result.variance[name].clamp(min=1e-8))):
            ordered = values.sort(descending=True).values.tolist()
            axes.plot(range(1, len(ordered) + 1), ordered, label=name, **line_style(i))
    variance.axhline(result.threshold, color="black", linewidth=0.8, linestyle="--")
    variance.set(title="Variance of the posterior mean", ylabel="squared units of z", yscale="log")
    kl.set(title="KL from the prior", ylabel="nats per example", ylim=(0, 1.05 * kl.get_ylim()[1]))
    for axes in (kl, variance):
        axes.set_xlabel("unit, in decreasing order")
        integer_ticks(axes.xaxis)
    if len(result.variance) > 1:
        kl.legend(title="site")
    return figure


@styled
def rate_distortion(result: Any) -> Figure:
    """Plot rate and distortion of programs.

    Args:
        result: the result of ``rate_distortion``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.rate_distortion({1.0: toy.program}, toy.draw(50))
        >>> rate_distortion(found).axes[0].get_xlabel()
        'rate: KL from the prior (nats per example)'
    """
    figure, (axes,) = panels(1, height=3.6, title="Rate and distortion (the lower left is better)")
    rows = result.rows()
    axes.plot([r["rate"] for r in rows], [r["distortion"] for r in rows], color=COLOURS[0], marker="o")
    for r in rows:
        text = f"beta {r['beta']:g}, {r['active']} active"
        axes.annotate(text, (r["rate"], r["distortion"]), xytext=(6, 6), textcoords="offset points")
    axes.set(xlabel="rate: KL from the prior (nats per example)", ylabel="distortion: -log p(x|z) (nats per example)")
    axes.margins(0.2)
    return figure
