"""Calibration, samples and representations."""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.plots.evaluations import histogram, panels
from pyro_vae.plots.images import is_image, reconstructions
from pyro_vae.plots.style import COLOURS, WIDTH, styled

__all__ = ["factor_map", "nearest_neighbours", "predictive_checks", "rank_curves", "scores"]

#: Lines that are drawn in colours of their own; more would not be told apart.
MOST_LINES = 8


@styled
def rank_curves(found: Any) -> Figure:
    """Draw the distribution of each rank less the uniform one, with the band in which all stay at the level.

    Args:
        found: the result of ``calibration``

    Returns:
        The figure; of many quantities the worst have a name.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.calibration(toy.program, toy.draw(8), num_simulations=200)
        >>> len(rank_curves(found).axes)
        2
    """
    figure, (axes, bars) = panels(2, height=3.2, width=1.5 * WIDTH)
    worst = sorted(found.ranks, key=lambda name: found.p_values[name])[: MOST_LINES - 1]
    n = 1
    for name, ranks in sorted(found.ranks.items(), key=lambda item: item[0] in worst):
        ordered, n = ranks.sort().values, len(ranks)
        apart = torch.arange(1, n + 1) / n - ordered
        own = worst.index(name) if name in worst else None
        look = {"color": "#BBBBBB"} if own is None else {"color": COLOURS[own], "label": name}
        axes.plot(ordered.tolist(), apart.tolist(), linewidth=1.2, **look)
    # the asymptotic quantile of the Kolmogorov-Smirnov distance, at the level shared out among the quantities
    band = math.sqrt(-0.5 * math.log(found.level / len(found.ranks) / 2) / n)
    axes.axhspan(-band, band, color="#DDDDDD", alpha=0.6, zorder=0, label=f"KS band, level {found.level}")
    verdict = "passes" if found.passed else "fails"
    axes.set(
        title="Distribution of the ranks",
        xlabel="rank of the true latent among draws",
        ylabel="share below, less the rank",
        xlim=(0, 1),
    )
    bins = min(20, n // 10)
    expected, spread = n / bins, 2.6 * math.sqrt(n / bins * (1 - 1 / bins))
    bars.hist(found.ranks[worst[0]].tolist(), bins=bins, range=(0, 1), color=COLOURS[0], histtype="step")
    bars.axhspan(expected - spread, expected + spread, color="#DDDDDD", alpha=0.6)
    bars.set(title=f"Ranks of {worst[0]} (band: 99%)", xlabel="rank", ylabel="simulated data", xlim=(0, 1))
    figure.suptitle(f"Calibration: the guide {verdict} on {n:,} simulated data", fontsize=10)
    figure.legend(loc="outside right upper")
    return figure


@styled
def predictive_checks(found: Any) -> Figure:
    """Draw each statistic of the data as a line in the histogram of its replicates.

    Args:
        found: the result of ``predictive_check``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> spread = {"spread": lambda x: x.std()}
        >>> found = pv.evaluation.predictive_check(toy.program, toy.draw(50), spread, prior=True)
        >>> predictive_checks(found).axes[0].get_xlabel()
        'spread'
    """
    figure, every = panels(len(found.observed), title="Predictive checks (line: the data)")
    for axes, (name, value) in zip(every, found.observed.items(), strict=True):
        histogram(axes, found.replicated[name], 0)
        axes.axvline(value, color=COLOURS[3])
        axes.set(title=f"p = {found.p_values[name]:.2g}", xlabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    every[0].set_ylabel("replicated data sets")
    return figure


def nearest_neighbours(found: Any) -> Figure:
    """Draw the samples that are closest to training data above these; distances where data are no images.

    Args:
        found: the result of ``samples``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.samples(toy.program, toy.draw(300, 1), toy.draw(300, 2), features=lambda x: x)
        >>> nearest_neighbours(found).axes[0].get_xlabel()
        'Euclidean distance'
    """
    if is_image(found.sampled.shape[1:]):
        closest = found.distance.argsort()[:16]
        figure = reconstructions(
            found.sampled[closest],
            found.nearest[closest],
            title="Samples closest to training data, and their neighbours",
        )
        figure.axes[0].set_yticklabels(["sample", "train"])
        return figure
    return distances(found)


@styled
def distances(found: Any) -> Figure:
    """Draw how far samples and test data are from the nearest training datum."""
    figure, (axes,) = panels(1, title="Distance to the nearest training datum")
    for i, (name, values) in enumerate({"samples": found.distance, "test data": found.test_distance}.items()):
        histogram(axes, values, i, density=True, label=name)
    axes.set(xlabel="Euclidean distance", ylabel="density", xlim=(0, None))
    axes.legend()
    return figure


@styled
def scores(found: Any, title: str = "Representation: posterior means") -> Figure:
    """Draw scores as points of one row, with their deviation over seeds.

    Args:
        found: the result of ``representation``
        title: above the figure

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(200)
        >>> right = (toy.posterior(x)[0][:, 0] > 0).long()
        >>> found = pv.evaluation.representation(toy.program, x, right)
        >>> scores(found, "Right or left").axes[0].get_title()
        ''
    """
    rows = found.rows()
    figure, (axes,) = panels(1, height=1.2 + 0.26 * len(rows), title=title)
    names = [f"{row['method']}: {row['score']}" for row in rows]
    deviation = [0.0 if math.isnan(row["std"]) else row["std"] for row in rows]
    places = range(len(rows))
    axes.errorbar([r["mean"] for r in rows], places, xerr=deviation, color=COLOURS[0], marker="o", linestyle="none")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlim=(-0.02, 1.02), xlabel="score (bars: deviation over starts)")
    return figure


@styled
def factor_map(found: Any) -> Figure:
    """Draw the mutual information of units and factors.

    Args:
        found: the result of ``disentanglement``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(200)
        >>> right = (toy.posterior(x)[0][:, 0] > 0).long()
        >>> factors = torch.stack([right, 1 - right], -1)
        >>> found = pv.evaluation.disentanglement(toy.program, x, factors)
        >>> factor_map(found).axes[0].get_xlabel()
        'factor'
    """
    figure, (axes,) = panels(1, height=3.6, title=f"Units and factors (MIG {found.scores['MIG']:.2f})")
    axes.grid(False)
    drawn = axes.imshow(found.mutual_information, cmap="cividis", vmin=0.0, aspect="auto")
    axes.set(xlabel="factor", ylabel="unit")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator("auto", integer=True))
    figure.colorbar(drawn, label="mutual information (nats)")
    return figure
