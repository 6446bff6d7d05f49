"""Images, and other data as heat maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from pyro_vae.plots.style import STYLE, WIDTH, as_numbers, integer_ticks, styled

__all__ = ["image_grid", "image_rows", "is_image", "reconstructions", "vectors"]

#: Smallest number of pixels on the longer side of a tile, and number of pixels between tiles.
TILE, GAP = 56, 2
#: Images with fewer pixels per side are enlarged smoothly: large blocks hide the shapes.
COARSE = 16


@styled
def image_grid(images: Any, *, rows: int | None = None, title: str = "") -> Figure:
    """Draw images as a grid of tiles.

    Args:
        images: grey or colour values in [0, 1], of shape ``(n, height, width)`` or ``(n, channels, height, width)``
            with 1 or 3 channels
        rows: number of rows; by default the grid is about twice as wide as high
        title: title of the figure

    Returns:
        The figure.

    Raises:
        ValueError: these are not images.

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
    """Draw data above their reconstructions, on one grey scale.

    Args:
        x: data, images as in :func:`image_grid` or vectors of shape ``(n, entries)``
        x_hat: their reconstructions, of the same shape
        title: title of the figure

    Returns:
        The figure: pairs of rows of images, or two heat maps for vectors.

    Raises:
        ValueError: the shapes differ or are empty.

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
    splits = zip(above.split(columns), below.split(columns), strict=True)
    pairs = [fill(part, columns) for pair in splits for part in pair]
    figure, axes = draw_tiles(torch.cat(pairs), columns, title, margin=0.55)
    label_rows(axes, ["input", "recon."] * (len(pairs) // 2))
    return figure


@styled
def image_rows(rows: Mapping[str, Any], *, title: str = "") -> Figure:
    """Draw several sets of images as named rows, on one grey scale.

    Args:
        rows: sets of images as in :func:`image_grid` by name, all of one shape
        title: title of the figure

    Returns:
        The figure.

    Raises:
        ValueError: there is no row, the shapes differ, or these are not images.

    Example:
        >>> figure = image_rows({"data": torch.rand(8, 8, 8), "samples": torch.rand(8, 8, 8)})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['data', 'samples']
    """
    shapes = {name: tuple(as_numbers(images).shape) for name, images in rows.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"rows: expected at least one set of images, all of one shape, got {shapes}")
    tiles = torch.cat([as_pixels(name, images) for name, images in rows.items()])
    margin = 0.2 + 0.07 * max(map(len, rows))
    figure, axes = draw_tiles(tiles, len(tiles) // len(rows), title, margin)
    label_rows(axes, list(rows))
    return figure


@styled
def vectors(rows: Any, *, title: str = "") -> Figure:
    """Draw data that are not images as a heat map with one row per example.

    Args:
        rows: ``(n, *shape)`` numbers, or several such arrays by name, drawn side by side on one scale
        title: title of the figure

    Returns:
        The figure.

    Example:
        >>> vectors(torch.randn(20, 5), title="samples").axes[0].get_xlabel()
        'entry of the example'
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
        axes.set(title=name, xlabel="entry of the example")
        integer_ticks(axes.xaxis, axes.yaxis)
    every[0].set_ylabel("example")
    figure.colorbar(drawn, ax=every.tolist(), label="value")
    return figure


def is_image(shape: Sequence[int]) -> bool:
    """Return whether examples of this shape can be drawn as images: ``(h, w)``, or ``(1 or 3, h, w)``.

    Args:
        shape: shape of one example

    Returns:
        True or False.

    Example:
        >>> is_image((28, 28)), is_image((3, 32, 32)), is_image((30,))
        (True, True, False)
    """
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def as_pixels(name: str, images: Any) -> Tensor:
    """Return images of shape (n, h, w), or (n, h, w, 3) for colour, enlarged by an integer factor."""
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
    """Append white tiles until there are ``n``."""
    return torch.cat([tiles, tiles.new_ones(n - len(tiles), *tiles.shape[1:])])


def draw_tiles(tiles: Tensor, columns: int, title: str, margin: float = 0.05) -> tuple[Figure, Axes]:
    """Draw tiles row by row with white lines between them, and ``margin`` inches free on the left."""
    rows = math.ceil(len(tiles) / columns)
    tiles = fill(tiles, rows * columns)
    _, height, width, *colour = tiles.shape
    sheet = tiles.new_ones(rows, columns, height + GAP, width + GAP, *colour)
    sheet[:, :, :height, :width] = tiles.unflatten(0, (rows, columns))
    sheet = sheet.transpose(1, 2).flatten(2, 3).flatten(0, 1)[:-GAP, :-GAP]
    # the full width of the page, unless a few tiles would become too large
    high = min(1.5 * rows, (WIDTH - margin - 0.05) * sheet.shape[0] / sheet.shape[1] + 0.1)
    figure = Figure(figsize=(WIDTH, high + (0.22 if title else 0.0)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return figure, axes


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write names to the left of the rows of tiles."""
    step = axes.images[0].get_array().shape[0] / len(names)
    axes.set_yticks([(row + 0.5) * step for row in range(len(names))], names)
    axes.tick_params(left=False)
    # a centred image would leave too little room for the names
    axes.set_anchor("W")
