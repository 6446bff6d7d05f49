"""The layout of a log-density: dimensions of enumerated values, particles and examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["PARTICLES", "VALUES_DIM", "Layout", "frames", "particle_dim", "same"]

#: Name of the plate over particles.
PARTICLES = "_particles"

#: Dimension of the first enumerated site: left of at most four nested plates of a program and of the particles.
VALUES_DIM = -6


class Layout(NamedTuple):
    """The plate of the data of a program: the outermost plate that all observed sites share.

    Attributes:
        name: name of the plate; None where no observed site is in a plate, which makes the whole run one example
        dim: its dimension, -1 in the programs of this library
        others: names of all other plates of the model
    """

    name: str | None = None
    dim: int = -1
    others: frozenset[str] = frozenset()

    @classmethod
    def of(cls, messages: Iterable[Any]) -> Layout:
        """Find the plate of the data from the messages of a model."""
        stacks = [(m["is_observed"], frames(m)) for m in messages]
        names = {frame.name for _, stack in stacks for frame in stack}
        observed = [stack for is_observed, stack in stacks if is_observed and stack]
        if not observed:
            return cls(None, -1, frozenset(names))
        shared = [f for f in observed[0] if all(f.name in [g.name for g in stack] for stack in observed[1:])]
        data = (shared or observed[0])[0]
        names.discard(data.name)
        return cls(data.name, data.dim, frozenset(names))

    def contains(self, message: Any) -> bool:
        """Whether a site has one value per example; a site outside the plate of the data is shared by all examples."""
        if self.name is None:
            return True
        for frame in message["cond_indep_stack"]:
            if frame.name == self.name or (frame.dim == self.dim and frame.name not in self.others):
                return True
        return False

    def per_example(self, x: Tensor, message: Any, event_dim: int = 0) -> Tensor:
        """Sum over the plates inside an example.

        Args:
            x: what a site has for each entry of its batch shape, followed by ``event_dim`` further dimensions
            message: of the site
            event_dim: number of dimensions on the right that are left alone

        Returns:
            A tensor of shape ``(*values, particles, batch, *event)``; batch is 1 for a site that all examples share,
            and particles is 1 where there is no plate over particles.
        """
        particles = particle_dim(message)
        inside = self.name is not None and self.contains(message)
        kept = {self.dim if inside else None, particles}
        first = max(VALUES_DIM + 1, event_dim - x.dim())
        summed = [dim - event_dim for dim in range(first, 0) if dim not in kept]
        x = x.sum(summed) if summed else x
        x = x if inside else x.unsqueeze(-1 - event_dim)
        # a divergence in closed form may be the same for all particles and lack their dimension
        return x.unsqueeze(-2 - event_dim) if particles is None or x.dim() == 1 + event_dim else x

    def per_row(self, x: Tensor, message: Any, event_dim: int) -> Tensor:
        """Flatten the plates inside an example and the event, to ``(particles, batch, dims)``."""
        x = x.reshape(*x.shape[: x.dim() - event_dim], -1)
        particles = particle_dim(message)
        x = x.unsqueeze(0) if particles is None else x.movedim(particles - 1, 0)
        return x.flatten(1).unsqueeze(1) if self.name is None else x.movedim(self.dim - 1, 1).flatten(2)

    def scale(self, scale: float | Tensor, name: str) -> float | Tensor:
        """Bring the scale of a site to one number, or one number per example, ``(batch,)``."""
        if not isinstance(scale, Tensor) or scale.dim() == 0:
            return scale
        if self.name is None or scale.numel() != scale.shape[max(self.dim, -scale.dim())]:
            raise ValueError(
                f"scale: expected a number, or one number per example, at site {name!r}, got a tensor of shape "
                f"{tuple(scale.shape)} that differs within an example"
            )
        return scale.reshape(-1)


def frames(message: Any) -> list[Any]:
    """Return the vectorized plates round a site from the outside in, without the plate over particles."""
    found = [f for f in message["cond_indep_stack"] if f.dim is not None and f.name != PARTICLES]
    return found if len(found) < 2 else sorted(found, key=lambda frame: frame.counter)


def particle_dim(message: Any) -> int | None:
    """Return the dimension of the plate over particles, None where there is a single particle."""
    for frame in message["cond_indep_stack"]:
        if frame.name == PARTICLES:
            return frame.dim
    return None


def in_data_plate(message: Any) -> bool:
    """Whether a site of a program of this library is in the plate of the data."""
    return Layout("data").contains(message)


def same(a: Any, b: Any) -> bool:
    """Whether two scales or masks are equal; tensors on another device than the CPU count as equal, unread."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        readable = type(a) is Tensor and type(b) is Tensor and a.device.type == b.device.type == "cpu"
        return a is b or (a.shape == b.shape and (not readable or torch.equal(a, b)))
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)
