"""Latents as points of the plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, as_numbers, styled

__all__ = ["latent_map"]

#: More classes than this are drawn as numbers, by a colour scale.
MOST_CLASSES = 24


@styled
def latent_map(z: Any, labels: Any = None, *, title: str = "Latent space: means of q(z|x)") -> Figure:
    """Draw latents as points, coloured by label.

    More than two dimensions are projected onto their two principal components, whose shares of the
    variance stand at the axes.

    Args:
        z: latents, of shape ``(n, latent)``, or several by name, drawn side by side within the same limits
        labels: ``(n,)`` class labels, or numbers for a colour scale; None for one colour
        title: above the figure

    Returns:
        The figure.

    Raises:
        ValueError: ``z`` is no matrix, there is no latent, or there is not one label a row.

    Example:
        >>> figure = latent_map(torch.randn(50, 2), torch.arange(50) % 3)
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('$z_1$', '$z_2$')
    """
    maps = {name: as_numbers(points) for name, points in (z if isinstance(z, Mapping) else {title: z}).items()}
    for points in maps.values():
        if points.dim() != 2 or not points.numel():
            raise ValueError(f"z: expected latents of shape (n, latent), got {tuple(points.shape)}")
    if not maps:
        raise ValueError("z: expected latents by name, got none")
    figure = Figure(figsize=(WIDTH if len(maps) == 1 else 1.5 * WIDTH, 4.6), layout="constrained")
    if title not in maps:
        figure.suptitle(title, fontsize=10)
    every = figure.subplots(1, len(maps), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, latents) in zip(every, maps.items(), strict=True):
        points, names = in_two_dimensions(latents)
        axes.set(title=name, xlabel=names[0], ylabel=names[1])
        axes.grid(True)
        draw_points(figure, axes, points, labels)
    # one legend, on the right of the last panel, is that of all
    for axes in every[:-1]:
        if axes.get_legend():
            axes.get_legend().remove()
    return figure


def draw_points(figure: Figure, axes: Axes, points: Tensor, labels: Any) -> None:
    """Draw points of one panel by their labels."""
    # small enough that a cloud of ten thousand points keeps its shape
    size = min(18.0, max(2.0, 9000 / len(points)))
    if labels is None:
        axes.scatter(*points.T, s=size, color=COLOURS[0], alpha=0.6, linewidths=0)
        return
    labels = torch.as_tensor(labels).detach().cpu()
    if labels.shape != points.shape[:1]:
        raise ValueError(f"labels: expected shape ({len(points)},), got {tuple(labels.shape)}")
    classes = labels.unique().tolist()
    if len(classes) > MOST_CLASSES:
        drawn = axes.scatter(*points.T, s=size, c=labels, cmap="cividis", linewidths=0)
        figure.colorbar(drawn, ax=axes, label="label")
        return
    draw_classes(axes, points, labels, classes, size)


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
