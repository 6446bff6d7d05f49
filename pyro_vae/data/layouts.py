"""Axes of images and sequences in arrays: detected from the shape, and moved to channels first."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.lazy import LazyRows

__all__ = ["LAYOUTS", "channels_first", "layout_of"]

#: The axes of one image, or of one sequence (steps and channels), and their number.
LAYOUTS = {"hw": 2, "hwc": 3, "chw": 3, "tc": 2}
#: Numbers of channels that tell where the channels are: grey, colour, colour with transparency.
CHANNELS = (1, 3, 4)


def layout_of(name: str, shape: tuple[int, ...], layout: str | None) -> str:
    """Return the axes of one image in an array: ``"hw"``, ``"hwc"`` or ``"chw"``; empty if they are not images.

    Args:
        name: name of the array, for the error message
        shape: shape of the array
        layout: the axes if they are known, else None

    Raises:
        ValueError: the axes are unknown, do not fit the shape, or can be either of two.

    Example:
        >>> layout_of("x", (10, 32, 32, 3), None), layout_of("x", (10, 3, 32, 32), None), layout_of("x", (10, 5), None)
        ('hwc', 'chw', '')
    """
    if layout is not None:
        if layout not in LAYOUTS or LAYOUTS[layout] != len(shape) - 1:
            raise ValueError(
                f"layout: expected 'hw' for shape (n, height, width), 'hwc' or 'chw' for images with channels, or "
                f"'tc' for sequences (n, steps, channels), got {layout!r} for {name} of shape {shape}"
            )
        return layout
    if len(shape) == 3:
        return "hw"
    if len(shape) != 4:
        return ""
    last, first = shape[3] in CHANNELS, shape[1] in CHANNELS
    if last and first:
        raise ValueError(
            f"layout: expected 'hwc' or 'chw' for {name} of shape {shape}, in which the channels can be the second or "
            "the last axis. Pass one of them"
        )
    return "hwc" if last else "chw"


class Moved(LazyRows):
    """Images that are read by batch, with the channels first.

    Args:
        rows: images with the channels last
    """

    def __init__(self, rows: LazyRows) -> None:
        n, height, width, channels = rows.shape
        self.rows, self.shape, self.row_bytes = rows, (n, channels, height, width), rows.row_bytes
        self.dtype = rows.dtype

    def read(self, index: np.ndarray) -> Tensor:
        """Return these images, on the CPU."""
        return self.rows.read(index).movedim(-1, 1).contiguous()


def channels_first(array: Any, layout: str) -> tuple[Any, str]:
    """Return images of this layout with the channels before height and width, and their layout."""
    if layout != "hwc":
        return array, layout
    if isinstance(array, LazyRows):
        return Moved(array), "chw"
    moved = array.movedim(-1, 1) if isinstance(array, Tensor) else np.moveaxis(array, -1, 1)
    # batches are gathered faster from contiguous images
    return (moved.contiguous() if isinstance(moved, Tensor) else moved), "chw"
