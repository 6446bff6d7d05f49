"""Every figure of the library, each a matplotlib ``Figure`` that knows nothing of pyplot or of a backend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = [
    "image_grid",
    "is_image",
    "latent_map",
    "reconstructions",
    "training_curve",
    "vectors",
]

#: Okabe and Ito's colours, which people with any of the common colour deficiencies tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
#: Of another number than the colours, so that 24 classes differ, and neighbours differ in both.
MARKERS = ("o", "^", "s", "v", "D", "P")
#: More classes than this are drawn as numbers, by a colour scale.
MOST_CLASSES = 24

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

#: Pixels on the longer side of a tile, at least, and between two tiles.
TILE, GAP = 56, 2
#: An image of fewer pixels a side is enlarged smoothly: in blocks of that size the eye sees no form.
COARSE = 16


@styled
def training_curve(history: Iterable[Mapping[str, Any]]) -> Figure:
    """Draw the bound, and what it is made of, against the epoch.

    Args:
        history: a ``History``, or rows with ``epoch``, ``loss`` and, where known, ``valid_bound``,
            ``reconstruction``, ``kl`` and ``beta``; all in mean nats per datum

    Returns:
        The figure; its second panel is left out where no row has a reconstruction or divergence.

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

    def column(key: str, sign: float = 1.0) -> list[float]:
        return [sign * row[key] if row.get(key) is not None else math.nan for row in rows]

    weighed = any(row.get("beta", 1.0) != 1.0 for row in rows)
    bounds = {
        "training (under its beta)" if weighed else "training": column("loss", -1.0),
        "validation": column("valid_bound"),
    }
    parts = {"reconstruction": column("reconstruction"), "KL": column("kl")}
    panels = [("Bound", bounds), ("Its parts, in training", parts)]
    panels = [panel for panel in panels if not all(map(math.isnan, sum(panel[1].values(), [])))]
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    colours = iter(COLOURS)
    # a line through few points is seen by them alone
    mark = "o" if len(rows) < 5 else None
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, values in lines.items():
            if all(map(math.isnan, values)):
                continue
            axes.plot(epochs, values, color=next(colours), label=name, marker=mark)
        axes.set(title=title, xlabel="epoch", ylabel="nats per datum")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.grid(True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


@styled
def image_grid(images: Any, *, rows: int | None = None, title: str = "") -> Figure:
    """Draw images as tiles of one picture.

    Args:
        images: grey or colour values in [0, 1], of shape ``(n, height, width)`` or ``(n, channels, height, width)``
            with 1 or 3 channels
        rows: rows of tiles; by default the grid is about twice as wide as high
        title: above the grid

    Returns:
        The figure.

    Raises:
        ValueError: the shape is not one of images.

    Example:
        >>> image_grid(torch.rand(20, 8, 8), title="noise").axes[0].get_title()
        'noise'
    """
    pixels = as_pixels("images", images)
    n = len(pixels)
    rows = rows or max(1, round(math.sqrt(n / 2)))
    figure, _ = draw_tiles(pixels, math.ceil(n / rows), title)
    return figure


@styled
def reconstructions(x: Any, x_hat: Any, *, title: str = "Inputs and reconstructions") -> Figure:
    """Draw data above their reconstructions, on the same grey scale.

    Args:
        x: data, images as in :func:`image_grid` or vectors of shape ``(n, entries)``
        x_hat: their reconstructions, of the same shape
        title: above the figure

    Returns:
        The figure: pairs of rows of images, or two heat maps for vectors.

    Raises:
        ValueError: the shapes differ or are no data.

    Example:
        >>> figure = reconstructions(torch.rand(10, 8, 8), torch.rand(10, 8, 8))
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['input', 'recon.']
    """
    x, x_hat = as_numbers(x), as_numbers(x_hat)
    if x.shape != x_hat.shape:
        raise ValueError(f"x_hat: expected the shape of x, {tuple(x.shape)}, got {tuple(x_hat.shape)}")
    if not is_image(x.shape[1:]):
        return vectors({"inputs": x, "reconstructions": x_hat}, title=title)
    above, below = as_pixels("x", x), as_pixels("x_hat", x_hat)
    columns = min(len(above), 16)
    pairs = [
        part
        for start in range(0, len(above), columns)
        for part in (
            fill(above[start : start + columns], columns),
            fill(below[start : start + columns], columns),
        )
    ]
    figure, axes = draw_tiles(torch.cat(pairs), columns, title, margin=0.55)
    step = axes.images[0].get_array().shape[0] / len(pairs)
    labels = ["input", "recon."] * (len(pairs) // 2)
    axes.set_yticks([(row + 0.5) * step for row in range(len(pairs))], labels)
    axes.tick_params(left=False)
    return figure


@styled
def latent_map(z: Any, labels: Any = None, *, title: str = "Latent space: means of q(z|x)") -> Figure:
    """Draw latents as points, coloured by label.

    More than two dimensions are projected onto their two principal components, whose shares of the
    variance stand at the axes.

    Args:
        z: latents, of shape ``(n, latent)``
        labels: ``(n,)`` class labels, or numbers for a colour scale; None for one colour
        title: above the figure

    Returns:
        The figure.

    Raises:
        ValueError: ``z`` is no matrix, or there is not one label a row.

    Example:
        >>> figure = latent_map(torch.randn(50, 2), torch.arange(50) % 3)
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('$z_1$', '$z_2$')
    """
    z = as_numbers(z)
    if z.dim() != 2 or not z.numel():
        raise ValueError(f"z: expected latents of shape (n, latent), got {tuple(z.shape)}")
    points, names = in_two_dimensions(z)
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=names[0], ylabel=names[1])
    axes.grid(True)
    # small enough that a cloud of ten thousand points keeps its shape
    size = min(18.0, max(2.0, 9000 / len(z)))
    if labels is None:
        axes.scatter(*points.T, s=size, color=COLOURS[0], alpha=0.6, linewidths=0)
        return figure
    labels = torch.as_tensor(labels).detach().cpu()
    if labels.shape != z.shape[:1]:
        raise ValueError(f"labels: expected shape ({len(z)},), got {tuple(labels.shape)}")
    classes = labels.unique().tolist()
    if len(classes) > MOST_CLASSES:
        drawn = axes.scatter(*points.T, s=size, c=labels, cmap="cividis", linewidths=0)
        figure.colorbar(drawn, label="label")
        return figure
    draw_classes(axes, points, labels, classes, size)
    return figure


@styled
def vectors(rows: Any, *, title: str = "") -> Figure:
    """Draw data without the form of an image as a heat map, one datum a row.

    Args:
        rows: ``(n, *shape)`` numbers, or several such arrays by name, drawn side by side on one scale
        title: above the figure

    Returns:
        The figure.

    Example:
        >>> vectors(torch.randn(20, 5), title="draws").axes[0].get_xlabel()
        'entry of the datum'
    """
    panels = rows if isinstance(rows, Mapping) else {"": rows}
    panels = {name: as_numbers(x).flatten(1) for name, x in panels.items()}
    low = min(float(x.min()) for x in panels.values())
    high = max(float(x.max()) for x in panels.values())
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=STYLE["axes.titlesize"])
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, x) in zip(every, panels.items(), strict=True):
        drawn = axes.imshow(x.numpy(), aspect="auto", cmap="cividis", vmin=low, vmax=high)
        axes.set(title=name, xlabel="entry of the datum")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator("auto", integer=True))
    every[0].set_ylabel("datum")
    figure.colorbar(drawn, ax=every.tolist(), label="value")
    return figure


def is_image(shape: Sequence[int]) -> bool:
    """Whether data of this shape can be drawn as images: ``(h, w)``, or ``(1 or 3, h, w)``.

    Example:
        >>> is_image((28, 28)), is_image((3, 32, 32)), is_image((30,))
        (True, True, False)
    """
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def as_numbers(x: Any) -> Tensor:
    """Return ``x`` as floats on the CPU."""
    return torch.as_tensor(x).detach().cpu().float()


def as_pixels(name: str, images: Any) -> Tensor:
    """Return images of shape (n, h, w), or (n, h, w, 3) for colour, enlarged by a whole number."""
    x = as_numbers(images).clamp(0, 1)
    if not len(x) or not is_image(x.shape[1:]):
        raise ValueError(
            f"{name}: expected images of shape (n, height, width) or (n, channels, height, width) with 1 or 3 "
            f"channels, got {tuple(x.shape)}"
        )
    side = max(x.shape[-2:])
    look = {"mode": "bicubic", "antialias": True} if side < COARSE else {"mode": "nearest"}
    x = x.reshape(len(x), -1, *x.shape[-2:])
    x = interpolate(x, scale_factor=math.ceil(TILE / side), **look).clamp(0, 1)
    return x.movedim(1, -1).squeeze(-1)


def fill(tiles: Tensor, n: int) -> Tensor:
    """Append white tiles up to ``n``."""
    return torch.cat([tiles, tiles.new_ones(n - len(tiles), *tiles.shape[1:])])


def draw_tiles(tiles: Tensor, columns: int, title: str, margin: float = 0.05) -> tuple[Figure, Axes]:
    """Draw tiles row by row as one array with white lines between; ``margin`` inches stay free on the left."""
    rows = math.ceil(len(tiles) / columns)
    tiles = fill(tiles, rows * columns)
    _, height, width, *colour = tiles.shape
    sheet = tiles.new_ones(rows, columns, height + GAP, width + GAP, *colour)
    sheet[:, :, :height, :width] = tiles.unflatten(0, (rows, columns))
    sheet = sheet.transpose(1, 2).flatten(2, 3).flatten(0, 1)[:-GAP, :-GAP]
    # the sheet takes the width of the page, unless that makes few tiles huge
    high = min(1.5 * rows, (WIDTH - margin - 0.05) * sheet.shape[0] / sheet.shape[1] + 0.1)
    figure = Figure(figsize=(WIDTH, high + (0.22 if title else 0.0)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return figure, axes


def in_two_dimensions(z: Tensor) -> tuple[Tensor, tuple[str, str]]:
    """Return points in the plane and the names of its axes."""
    if z.shape[1] == 2:
        return z, ("$z_1$", "$z_2$")
    if z.shape[1] == 1:
        return torch.cat([z, torch.arange(len(z))[:, None]], 1), ("$z_1$", "datum")
    centred = (z - z.mean(0)).double()
    variance, direction = torch.linalg.eigh(centred.T @ centred)
    share = (variance / variance.sum()).flip(0).tolist()
    top = direction.flip(1)[:, :2]
    # an eigenvector is as good as its negative: fixed, so that the same data give the same figure
    largest = top.gather(0, top.abs().argmax(0, keepdim=True))
    names = (f"principal component {i + 1} ({share[i]:.0%} of the variance)" for i in range(2))
    return (centred @ (top * largest.sign())).float(), tuple(names)


def draw_classes(axes: Axes, points: Tensor, labels: Tensor, classes: list[Any], size: float) -> None:
    """Draw each class in its own colour and marker, with its name in the middle and in a legend outside."""
    for i, name in enumerate(classes):
        own = points[labels == name]
        look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        axes.scatter(*own.T, s=size, alpha=0.75, linewidths=0, label=str(name), **look)
    for name in classes:
        middle = points[labels == name].median(0).values.tolist()
        halo = [withStroke(linewidth=2.5, foreground="white")]
        axes.annotate(str(name), middle, ha="center", va="center", weight="bold", path_effects=halo)
    legend = axes.legend(title="label", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for handle in legend.legend_handles:
        handle.set(sizes=[24], alpha=1.0)
