"""Shapes of examples: vectors, images and sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

from pyro_vae._util.validation import check_int

__all__ = ["Shape", "as_shape", "image_shape", "sequence_shape", "wide"]

#: The shape of one example, input or output.
Shape = Sequence[int]


def wide(shape: Shape) -> tuple[int, ...]:
    """Return a shape without its dimensions of size 1."""
    return tuple(size for size in shape if size != 1)


def as_shape(shape: Shape | int, name: str = "shape") -> tuple[int, ...]:
    """Return ``shape`` as a tuple of positive ints, or raise."""
    sizes = (shape,) if isinstance(shape, (int, Integral)) else tuple(shape)
    return tuple(check_int(f"{name} {sizes}", n) for n in sizes)


def image_shape(name: str, shape: Shape, dims: int = 2) -> tuple[int, ...]:
    """Return ``(channels, *size)``, where ``size`` is the last ``dims`` dimensions and the others are channels."""
    shape = as_shape(shape, name)
    if len(shape) < dims:
        size = {1: "length", 2: "height, width", 3: "depth, height, width"}[dims]
        raise ValueError(f"{name}: expected ({size}) or (channels, {size}), got {shape}. Use MLP for vectors.")
    return (math.prod(shape[: len(shape) - dims]), *shape[len(shape) - dims :])


def sequence_shape(name: str, shape: Shape) -> tuple[int, int]:
    """Return ``(steps, width)``, with all dimensions after the first folded into the width."""
    shape = as_shape(shape, name)
    if len(shape) < 2:
        raise ValueError(f"{name}: expected a sequence, (steps, width), got {shape}. Use MLP for vectors.")
    return shape[0], math.prod(shape[1:])
