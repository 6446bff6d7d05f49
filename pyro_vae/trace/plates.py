"""The plates of a site, and checks that its distribution declares every dimension of its batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["PARTICLES", "VALUES_DIM", "batch_shape", "check_match", "check_plates", "frames", "particle_dim"]

#: Name of the plate over particles.
PARTICLES = "_particles"

#: Dimension of the first enumerated site: left of at most four nested plates of a program and of the particles.
VALUES_DIM = -6

#: The dimensions on the right of the enumerated values.
RIGHT = range(-1, VALUES_DIM, -1)


def frames(message: Any) -> list[Any]:
    """Return the vectorized plates around a site from the outside in, without the plate over particles."""
    found = [f for f in message["cond_indep_stack"] if f.dim is not None and f.name != PARTICLES]
    return found if len(found) < 2 else sorted(found, key=lambda frame: frame.counter)


def particle_dim(message: Any) -> int | None:
    """Return the dimension of the plate over particles, None where there is a single particle."""
    for frame in message["cond_indep_stack"]:
        if frame.name == PARTICLES:
            return frame.dim
    return None


def batch_shape(message: Any) -> torch.Size:
    """Return the shape of the masked log-density of a site."""
    fn, value, mask = message["fn"], message["value"].shape, message["mask"]
    masks = [mask.shape] if isinstance(mask, Tensor) else []
    return torch.broadcast_shapes(fn.batch_shape, value[: len(value) - fn.event_dim], *masks)


def check_plates(message: Any, where: str) -> None:
    """Raise if a dimension of a site is in no plate: its rows would be counted as one example.

    Args:
        message: of a sample statement
        where: ``"model"`` or ``"guide"``, for the error
    """
    stack, batch, mask = message["cond_indep_stack"], message["fn"].batch_shape, message["mask"]
    if stack and stack[-1].dim == -1 and (not isinstance(mask, Tensor) or mask.dim() < 2):
        # the usual cases, for speed: the plate of the data, without or with that of the particles
        size = math.prod(batch[VALUES_DIM + 1 : -1])
        particles = len(stack) == 2 and stack[0].name == PARTICLES
        if (particles or len(stack) == 1) and (size == 1 or (len(batch) == -stack[0].dim and size == batch[0])):
            return
    dims = {frame.dim for frame in stack if frame.dim is not None}
    if dims and min(dims) <= VALUES_DIM:
        raise ValueError(
            f"{where}: expected at most {-VALUES_DIM - 1} nested plates, including that of the particles, got one at "
            f"dimension {min(dims)} at site {message['name']!r}: merge plates, or declare inner ones by .to_event"
        )
    outermost = min((frame.dim for frame in frames(message)), default=0)
    for shape in (batch, mask.shape) if isinstance(mask, Tensor) else (batch,):
        for dim, size in zip(RIGHT, reversed(shape), strict=False):
            # a dimension on the right of a plate belongs to the entries of that plate
            if size > 1 and dim < outermost and dim not in dims:
                raise ValueError(
                    f"{where}: site {message['name']!r} has batch shape {tuple(shape)}, whose dimension {dim} is in "
                    "no plate: open the plate of the data (pyro_vae.programs.DataPlate) around it, or declare the "
                    "dimensions of one example by .to_event"
                )


def check_match(name: str, guide: Any, model: Any) -> None:
    """Raise if guide and model give a latent site different shapes or plates.

    Args:
        name: of the site
        guide: its message in the guide
        model: its message in the model
    """
    q, p, stack = guide["fn"], model["fn"], guide["cond_indep_stack"]
    alike, nested = q.event_shape == p.event_shape, len(stack) - (bool(stack) and stack[0].name == PARTICLES) > 1
    if alike and not nested and q.batch_shape == p.batch_shape:
        return  # the usual case, for speed
    if not alike or plate_sizes(guide) != plate_sizes(model):
        raise ValueError(
            f"model and guide: expected one shape at site {name!r}, got batch shape {tuple(p.batch_shape)} and event "
            f"shape {tuple(p.event_shape)} in the model, and batch shape {tuple(q.batch_shape)} and event shape "
            f"{tuple(q.event_shape)} in the guide: give prior and posterior the same number of latents, and open the "
            "same plates in both"
        )
    dims = {frame.name: frame.dim for frame in frames(model)} if nested else {}
    for frame in frames(guide) if nested else ():
        if dims.get(frame.name, frame.dim) != frame.dim:
            raise ValueError(
                f"model and guide: plate {frame.name!r} at site {name!r} has dimension {dims[frame.name]} in the "
                f"model and {frame.dim} in the guide: give it the same `dim` in both"
            )


def plate_sizes(message: Any) -> list[int]:
    """Return the sizes of the plates of a site from the left, those over values and particles left out."""
    sizes = list(message["fn"].batch_shape[VALUES_DIM + 1 :])
    particles = particle_dim(message)
    # that plate does not expand the distribution of a value that is replayed
    if particles is not None and len(sizes) >= -particles:
        sizes[particles] = 1
    while sizes and sizes[0] == 1:
        del sizes[0]
    return sizes
