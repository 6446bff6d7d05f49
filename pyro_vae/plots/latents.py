"""Maps of latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from pyro_vae._util.arrays import as_tensor
from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, as_numbers, styled

__all__ = ["latent_map"]

#: Labels with more different values are drawn on a colour scale.
MAX_CLASSES = 24

#: More ellipses would hide the points.
MAX_ELLIPSES = 40


@styled
def latent_map(z: Any, labels: Any = None, *, std: Any = None, title: str = "Latent space: means of q(z|x)") -> Figure:
    """Plot latents as points, coloured by label.

    More than two dimensions are projected onto the first two principal components; the axis labels give their shares
    of the variance.

    Args:
        z: latents of shape ``(n, latent)``, or several such arrays by name, drawn side by side with equal limits
        labels: ``(n,)`` class labels, or numbers for a colour scale; None for one colour
        std: posterior standard deviations of independent latents, of the shape of ``z``: drawn as ellipses of one
            standard deviation around up to 40 of the points
        title: title of the figure

    Returns:
        The figure.

    Raises:
        ValueError: the shapes of z, labels and std do not fit, or there are no latents.

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
        points, names, directions = in_two_dimensions(latents)
        axes.set(title=name, xlabel=names[0], ylabel=names[1])
        axes.grid(True)
        if std is not None:
            count = draw_ellipses(axes, points, check_std(std, latents), directions)
            axes.set_title(f"{name}\n(ellipses: one standard deviation, for {count} of {len(latents)} examples)")
        draw_points(figure, axes, points, labels)
    # the legend to the right of the last panel is that of all panels
    for axes in every[:-1]:
        if axes.get_legend():
            axes.get_legend().remove()
    return figure


def check_std(std: Any, z: Tensor) -> Tensor:
    """Return standard deviations, after a check that they have the shape of ``z``."""
    std = as_numbers(std)
    if std.shape != z.shape:
        raise ValueError(f"std: expected the shape of z, {tuple(z.shape)}, got {tuple(std.shape)}")
    return std


def draw_points(figure: Figure, axes: Axes, points: Tensor, labels: Any) -> None:
    """Draw the points of one panel, coloured by label."""
    # small enough for clouds of ten thousand points
    size = min(18.0, max(2.0, 9000 / len(points)))
    if labels is None:
        axes.scatter(*points.T, s=size, color=COLOURS[0], alpha=0.6, linewidths=0)
        return
    labels = as_tensor(labels).detach().cpu()
    if labels.shape != points.shape[:1]:
        raise ValueError(f"labels: expected shape ({len(points)},), got {tuple(labels.shape)}")
    classes = labels.unique().tolist()
    if len(classes) > MAX_CLASSES:
        drawn = axes.scatter(*points.T, s=size, c=labels, cmap="cividis", linewidths=0)
        figure.colorbar(drawn, ax=axes, label="label")
        return
    draw_classes(axes, points, labels, classes, size)


def in_two_dimensions(z: Tensor) -> tuple[Tensor, tuple[str, str], Tensor]:
    """Return points in the plane, the names of its axes, and their directions, of shape ``(latent, 2)``."""
    if z.shape[1] == 2:
        return z, ("$z_1$", "$z_2$"), torch.eye(2)
    if z.shape[1] == 1:
        return torch.cat([z, torch.arange(len(z))[:, None]], 1), ("$z_1$", "example"), torch.eye(2)[:1]
    centred = (z - z.mean(0)).double()
    variance, direction = torch.linalg.eigh(centred.T @ centred)
    share = (variance / variance.sum()).flip(0).tolist()
    top = direction.flip(1)[:, :2]
    # the sign of an eigenvector is arbitrary: fixed, so that the same data give the same figure
    largest = top.gather(0, top.abs().argmax(0, keepdim=True))
    names = (f"principal component {i + 1} ({share[i]:.0%} of the variance)" for i in range(2))
    top = top * largest.sign()
    return (centred @ top).float(), tuple(names), top.float()


def draw_ellipses(axes: Axes, points: Tensor, std: Tensor, directions: Tensor) -> int:
    """Draw ellipses of one standard deviation around evenly spaced points, and return their number."""
    rows = torch.arange(0, len(points), -(-len(points) // MAX_ELLIPSES))
    covariance = torch.einsum("ia,ni,ib->nab", directions, std[rows].square(), directions)
    variance, axis = torch.linalg.eigh(covariance)
    length = 2 * variance.clamp(min=0).sqrt()
    angle = torch.atan2(axis[:, 1, 1], axis[:, 0, 1]).rad2deg()
    ellipses = EllipseCollection(
        length[:, 1].numpy(),
        length[:, 0].numpy(),
        angle.numpy(),
        units="xy",
        offsets=points[rows].numpy(),
        offset_transform=axes.transData,
        facecolors="none",
        edgecolors="#888888",
        linewidths=0.7,
        zorder=0.9,  # below the points
    )
    axes.add_collection(ellipses)
    return len(rows)


def draw_classes(axes: Axes, points: Tensor, labels: Tensor, classes: list[Any], size: float) -> None:
    """Draw each class in its own colour and marker, with its name at its median and in a legend outside."""
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
