"""Arrays as examples: images, counts or rows of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.arrays import fill_masked
from pyro_vae.data.dataset import Levels, Split
from pyro_vae.data.examples import AXES, Examples
from pyro_vae.data.layouts import channels_first, layout_of
from pyro_vae.data.lazy import LazyRows
from pyro_vae.data.mapped import Mapped
from pyro_vae.data.readers import Content, Options
from pyro_vae.data.tidy import labelled

__all__ = ["as_rows", "check_numbers", "of_array"]


def of_array(name: str, content: Content, options: Options) -> Examples:
    """Return an array as examples: images, counts or rows of numbers."""
    array, notes, levels = fill_masked(content.rows), list(content.notes), options.levels
    check_numbers(name, array)
    if len(array.shape) < 2 or 0 in array.shape:
        raise ValueError(f"{name}: expected an array with one example per row, got shape {tuple(array.shape)}")
    if len(array.shape) == 3 and not (content.axes or options.layout or is_integer(array)):
        check_grey(name, array)
    array, layout = channels_first(array, layout_of(name, tuple(array.shape), content.axes or options.layout))
    transform = None
    if is_integer(array):
        low, high = limits(array)
        transform = Levels(integers(name, array, layout, content.levels if levels is None else levels, high))
        divided = f"divided by {transform.largest}" if transform.largest > 1 else "converted to floating point"
        kind = "levels" if transform.largest > 1 else "counts" if low >= 0 and high > 1 else "integers"
        notes.append(f"values: {kind} {low} to {high}, {divided} in each batch")
    elif levels is not None:
        raise ValueError(f"levels: expected none for {name} of {array.dtype}, which is not divided. Leave it out")
    if layout and content.axes is None:
        notes.append(f"axes of one image: {', '.join(AXES[axis] for axis in layout)} (the option layout sets others)")
    y, classes = labelled(name, content.labels, options)
    x = Mapped(array) if isinstance(array, np.memmap) else array
    x = x if isinstance(x, LazyRows) else as_rows(name, x)
    more = {"classes": classes, "context": content.context, "notes": tuple(notes), "name": name}
    return Examples(x, y, transform, kind="image" if layout else "array", layout=layout, **more)


def as_rows(name: str, array: Any) -> Tensor:
    """Return an array as a tensor, which shares its memory where torch can."""
    if isinstance(array, Tensor):
        return array.detach()
    check_numbers(name, array)
    shared = array.flags.writeable and array.dtype.isnative and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if shared else np.array(array, array.dtype.newbyteorder("=")))


def check_numbers(name: str, array: Any) -> None:
    """Raise unless an array has numbers."""
    kind = str(array.dtype).removeprefix("torch.").lstrip("<>=|")
    if not kind.startswith(("float", "int", "uint", "bool", "bfloat", "f", "i", "u")):
        raise ValueError(f"{name}: expected an array of numbers, got numpy dtype {array.dtype}")


def check_grey(name: str, array: Any) -> None:
    """Raise if floating-point numbers are no grey levels, so that they may be sequences as well as images."""
    rows = Split(array if isinstance(array, LazyRows) else as_rows(name, array))
    if any((chunk < 0).any() or (chunk > 1).any() for chunk in rows.chunks()):
        raise ValueError(
            f"layout: expected 'tc' for sequences (n, steps, channels) or 'hw' for images (n, height, width), as "
            f"{name} of shape {tuple(array.shape)} has numbers outside of [0, 1] and can be either. Pass one of them"
        )


def is_integer(array: Any) -> bool:
    """Whether an array of numpy or torch has integers or booleans."""
    return "int" in str(array.dtype) or "bool" in str(array.dtype)


def limits(array: Any) -> tuple[int, int]:
    """Return the smallest and the largest of integers."""
    if not isinstance(array, LazyRows):
        return int(array.min()), int(array.max())
    found = [chunk.aminmax() for chunk in Split(array).chunks()]
    return min(int(chunk.min) for chunk in found), max(int(chunk.max) for chunk in found)


def integers(name: str, array: Any, layout: str, levels: int | None, high: int) -> int:
    """Return the number by which an array of integers up to ``high`` is divided."""
    byte = "uint8" in str(array.dtype)
    if levels is not None:
        if levels not in (1, 255) or not byte or high > levels:
            raise ValueError(
                f"levels: expected 255, or 1 for binary values, for images in uint8, got {levels} for {name} of "
                f"{array.dtype} with values up to {high}"
            )
        return levels
    if byte and not layout and high > 1:
        raise ValueError(
            f"{name}: expected images (n, height, width) or numbers, got rows of bytes up to {high}. Pass levels=255 "
            "for grey levels, or save counts as int64"
        )
    return 255 if byte and high > 1 else 1
