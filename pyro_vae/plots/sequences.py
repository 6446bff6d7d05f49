"""Sequences and their forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae.plots.style import COLOURS, WIDTH, as_numbers, integer_ticks, styled

__all__ = ["forecasts", "sequences"]

#: Most sequences in one figure, and most channels.
MOST, CHANNELS = 6, 3


@styled
def forecasts(
    x: Any, result: Any, lengths: Tensor | None = None, *, truth: Any = None, level: float = 0.9, channel: int = 0
) -> Figure:
    """Plot sequences, their forecasts with intervals and, if known, the true steps, with a panel per sequence.

    Args:
        x: the sequences, of shape ``(n, T, channels)``, or what ``data.read`` returns, which has their lengths;
            missing entries (NaN) are gaps
        result: the result of ``tasks.forecast``; of more than 6 sequences, the first 6 are shown
        lengths: lengths of the sequences, of shape ``(n,)``; if None, those of x, or T if x has none
        truth: the true steps after the end of each sequence, of shape ``(n, steps, channels)``
        level: probability of the interval
        channel: which channel is shown

    Returns:
        The figure.

    Example:
        >>> import torch, pyro_vae as pv
        >>> program, x = pv.programs.SequenceVAE.example(), torch.randn(2, 9, 4)
        >>> found = pv.tasks.forecast(program, x, num_steps=4, num_samples=100, progress=False)
        >>> len(forecasts(x, found).axes)
        2
    """
    lengths = getattr(x, "lengths", None) if lengths is None else lengths
    x, mean = as_numbers(getattr(x, "x", x)), as_numbers(result.mean)
    ends = [as_numbers(end) for end in result.interval(level)]
    count, ahead = min(len(x), MOST), mean.shape[1]
    ends_at = [x.shape[1]] * len(x) if lengths is None else lengths.long().tolist()
    figure = Figure(figsize=(1.3 * WIDTH, 0.5 + 1.5 * count), layout="constrained")
    every = figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0].tolist()
    for i, (axes, length) in enumerate(zip(every, ends_at, strict=False)):
        after = range(length + 1, length + ahead + 1)
        lower, upper, middle = (values[i, :, channel].tolist() for values in (*ends, mean))
        look = {"markersize": 3, "linewidth": 1}
        axes.plot(range(1, length + 1), x[i, :length, channel].tolist(), "o-", color="black", label="observed", **look)
        axes.fill_between(after, lower, upper, color=COLOURS[0], alpha=0.25, label=f"{level:.0%} interval")
        axes.plot(after, middle, color=COLOURS[0], label="mean of the forecast")
        if truth is not None:
            values = as_numbers(truth)[i, :, channel].tolist()
            axes.plot(after, values, "o", color=COLOURS[3], markersize=3, label="true steps")
        axes.set(ylabel=f"sequence {i}\nx, channel {channel}")
        axes.grid(True)
        integer_ticks(axes.xaxis)
    every[-1].set_xlabel("step")
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@styled
def sequences(rows: Mapping[str, Any], lengths: Tensor | None = None, *, title: str = "") -> Figure:
    """Plot sequences, such as data and their reconstructions, with a row of panels per sequence.

    Args:
        rows: sequences of shape ``(n, T, channels)`` by name, drawn above each other; of more than 6 sequences and 3
            channels, the first are shown. Missing entries (NaN) are gaps
        lengths: lengths of the sequences, of shape ``(n,)``; T if None
        title: title of the figure

    Returns:
        The figure.

    Raises:
        ValueError: the shapes differ, or these are not sequences.

    Example:
        >>> import torch
        >>> x = torch.randn(2, 9, 4)
        >>> len(sequences({"data": x, "reconstructions": x + 0.1}).axes)
        6
    """
    drawn = {name: as_numbers(x) for name, x in rows.items()}
    shapes = {name: tuple(x.shape) for name, x in drawn.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 3 or 0 in shape for shape in shapes.values()):
        raise ValueError(f"rows: expected sequences of one shape (n, steps, channels), got {shapes}")
    n, steps, channels = next(iter(shapes.values()))
    n, channels = min(n, MOST), min(channels, CHANNELS)
    ends = [steps] * n if lengths is None else lengths.long().tolist()
    figure = Figure(figsize=(max(WIDTH, 3 * channels), 0.6 + 1.2 * n), layout="constrained")
    figure.suptitle(title, fontsize=10)
    every = figure.subplots(n, channels, squeeze=False, sharex=True, sharey="col")
    looks = [{"marker": "o", "color": "black"}, *({"color": colour} for colour in COLOURS)]
    for i, c in product(range(n), range(channels)):
        axes = every[i][c]
        for (name, x), look in zip(drawn.items(), looks, strict=False):
            axes.plot(
                range(1, ends[i] + 1), x[i, : ends[i], c].tolist(), label=name, markersize=2, linewidth=1, **look
            )
        axes.set(title=f"channel {c}" if i == 0 else "", ylabel=f"sequence {i}" if c == 0 else "")
        axes.grid(True)
        integer_ticks(axes.xaxis)
    for axes in every[-1]:
        axes.set_xlabel("step")
    if len(drawn) > 1:
        figure.legend(*every[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(drawn))
    return figure
