"""Calibration, samples and representations."""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyro_vae.plots.images import is_image, reconstructions
from pyro_vae.plots.style import COLOURS, WIDTH, histogram, integer_ticks, panels, styled

__all__ = ["factor_map", "nearest_neighbours", "perplexities", "predictive_checks", "rank_curves", "scores"]


@styled
def rank_curves(result: Any) -> Figure:
    """Plot the distribution of each rank minus the uniform one, with the band that contains all of a calibrated guide.

    Args:
        result: the result of ``calibration``

    Returns:
        The figure, in which the worst quantities have a colour and a name.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.calibration(toy.program, toy.draw(8), num_simulations=200)
        >>> len(rank_curves(found).axes)
        2
    """
    n = len(next(iter(result.ranks.values())))
    verdict = "passes" if result.passed else "fails"
    title = f"Calibration: the guide {verdict} on {n:,} simulated examples"
    figure, (curves, bars) = panels(2, height=3.2, width=1.5 * WIDTH, title=title)
    # asymptotic quantile of the Kolmogorov-Smirnov distance, at a level corrected for the number of quantities
    band = math.sqrt(-0.5 * math.log(result.level / len(result.ranks) / 2) / n)
    outside = 0
    worst = sorted(result.ranks, key=lambda name: result.p_values[name])[: len(COLOURS) - 1]
    for name, ranks in sorted(result.ranks.items(), key=lambda item: item[0] in worst):
        ordered = ranks.sort().values
        look = {"color": COLOURS[worst.index(name)], "label": name} if name in worst else {"color": "#BBBBBB"}
        curve = torch.arange(1, n + 1) / n - ordered
        outside += bool((curve.abs() > band).any())
        curves.plot(ordered.tolist(), curve.tolist(), linewidth=1.2, **look)
    curves.axhspan(-band, band, color="#DDDDDD", alpha=0.6, zorder=0, label=f"KS band, level {result.level}")
    leave = f"{outside} of {len(result.ranks)} curves leave the band"
    curves.set(title=leave if outside else "All curves stay inside the band", xlim=(0, 1))
    curves.set(xlabel="rank of the true latent among samples", ylabel="cumulative share minus rank")
    bins = min(20, n // 10)
    mean, margin = n / bins, 2.6 * math.sqrt(n / bins * (1 - 1 / bins))
    bars.hist(result.ranks[worst[0]].tolist(), bins=bins, range=(0, 1), color=COLOURS[0], histtype="step")
    bars.axhspan(mean - margin, mean + margin, color="#DDDDDD", alpha=0.6)
    bars.set(title=f"Ranks of {worst[0]} (band: 99%)", xlabel="rank", ylabel="simulated examples", xlim=(0, 1))
    figure.legend(loc="outside right upper")
    return figure


@styled
def predictive_checks(result: Any) -> Figure:
    """Plot each statistic of the data as a line in the histogram of its replicates.

    Args:
        result: the result of ``predictive_check``

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
    title = "Predictive checks: the data (line) among replicates of the model"
    figure, every = panels(len(result.observed), title=title)
    for axes, (name, value) in zip(every, result.observed.items(), strict=True):
        histogram(axes, result.replicated[name], 0)
        axes.axvline(value, color=COLOURS[3])
        axes.set(title=f"p = {result.p_values[name]:.2g}", xlabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    every[0].set_ylabel("replicated data sets")
    return figure


@styled
def nearest_neighbours(result: Any) -> Figure:
    """Plot the samples closest to training images above these images; for other data a histogram of distances.

    Args:
        result: the result of ``samples``

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> found = pv.evaluation.samples(toy.program, toy.draw(300, 1), toy.draw(300, 2), features=lambda x: x)
        >>> nearest_neighbours(found).axes[0].get_xlabel()
        'Euclidean distance'
    """
    if is_image(result.sampled.shape[1:]):
        closest = result.distance.argsort()[:16]
        title = "Samples closest to training data, and their nearest neighbours"
        figure = reconstructions(result.sampled[closest], result.nearest[closest], title=title)
        figure.axes[0].set_yticklabels(["sample", "train"])
        return figure
    figure, (axes,) = panels(1, title="Memorization: distance to the nearest training example")
    for i, (name, values) in enumerate({"samples": result.distance, "test data": result.test_distance}.items()):
        histogram(axes, values, i, density=True, label=name)
    axes.set(xlabel="Euclidean distance", ylabel="density", xlim=(0, None))
    axes.legend()
    return figure


@styled
def perplexities(result: Any, title: str = "Perplexity: equally probable words to choose from") -> Figure:
    """Plot the perplexities of documents as bars.

    Args:
        result: the result of ``perplexity``
        title: title of the figure

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> program = pv.programs.TopicModel.example()
        >>> words = torch.ones(5, *program.likelihood.shape)
        >>> perplexities(pv.evaluation.perplexity(program, words), "Five documents").get_suptitle()
        'Five documents'
    """
    rows = result.rows()
    figure, (axes,) = panels(1, height=1.2 + 0.4 * len(rows), title=title)
    bars = axes.barh([row["average"] for row in rows], [row["perplexity"] for row in rows], color=COLOURS[0])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set(xlabel="perplexity, words (lower is better)", ylabel="mean")
    return figure


@styled
def scores(result: Any, title: str = "Representation: posterior means") -> Figure:
    """Plot scores as one point per row, with their standard deviation over seeds.

    Args:
        result: the result of ``representation``
        title: title of the figure

    Returns:
        The figure.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(200)
        >>> right = (toy.posterior(x)[0][:, 0] > 0).long()
        >>> found = pv.evaluation.representation(toy.program, x, right)
        >>> scores(found, "Right or left").get_suptitle()
        'Right or left'
    """
    rows = result.rows()
    figure, (axes,) = panels(1, height=1.2 + 0.26 * len(rows), title=title)
    std = [0.0 if math.isnan(row["std"]) else row["std"] for row in rows]
    axes.errorbar(
        [r["mean"] for r in rows], range(len(rows)), xerr=std, color=COLOURS[0], marker="o", linestyle="none"
    )
    axes.set_yticks(range(len(rows)), [f"{row['method']}: {row['score']}" for row in rows])
    axes.invert_yaxis()
    axes.set(xlim=(-0.02, 1.02), xlabel="score (1 is best; bars: standard deviation over seeds)")
    return figure


@styled
def factor_map(result: Any) -> Figure:
    """Plot the mutual information of latent units and factors.

    Args:
        result: the result of ``disentanglement``

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
    title = f"Disentangled: one unit per factor (MIG {result.scores['MIG']:.2f})"
    figure, (axes,) = panels(1, height=3.6, title=title)
    axes.grid(False)
    drawn = axes.imshow(result.mutual_information, cmap="cividis", vmin=0.0, aspect="auto")
    axes.set(xlabel="factor", ylabel="unit")
    integer_ticks(axes.xaxis, axes.yaxis)
    figure.colorbar(drawn, label="mutual information (nats)")
    return figure
