"""The layout of a log-density: dimensions of enumerated values, particles and examples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from pyro_vae.trace.plates import VALUES_DIM, check_plates, frames, particle_dim

__all__ = ["Layout", "readable", "same"]

#: The device whose tensors are read in a step.
HOST = "cpu"


class Layout(NamedTuple):
    """The plate of the data of a program: the outermost plate that all observed sites share.

    Attributes:
        name: name of the plate; None where the whole run is one example: no observed site is in a plate, or a site
            that the model sums over is outside the plate
        dim: its dimension, -1 in the programs of this library
        others: names of all other plates of the model
        local: whether a site is in the plate, by name, for each site of the model
        second: name of an observed site in another plate, where the observed sites share none; None in most programs
    """

    name: str | None = None
    dim: int = -1
    others: frozenset[str] = frozenset()
    local: Mapping[str, bool] = {}
    second: str | None = None

    @classmethod
    def of(cls, sites: Mapping[str, Any], summed: Collection[str] = ()) -> Layout:
        """Find the plate of the data from the sites of a model.

        Args:
            sites: the messages of a run of the model, by name
            summed: names of the sites that the model sums over

        Raises:
            ValueError: a dimension of a site is in no plate.
        """
        stacks, observed = {}, []
        for name, message in sites.items():
            check_plates(message, "model")
            stacks[name] = stack = frames(message)
            if stack and message["is_observed"]:
                observed.append(stack)
        if not observed:
            return cls()
        data, second = observed[0][0], None
        if len(observed) > 1:
            shared = [f for f in observed[0] if all(f.name in names_of(stack) for stack in observed)]
            if shared:
                data = shared[0]
            else:
                second = next(n for n, m in sites.items() if m["is_observed"] and data.name not in names_of(stacks[n]))
        others, local = set(), {}
        for name, stack in stacks.items():
            local[name] = False
            for frame in stack:
                if frame.name == data.name:
                    local[name] = True
                else:
                    others.add(frame.name)
        if summed and not all(local[name] for name in summed):
            return cls()
        return cls(data.name, data.dim, frozenset(others), local, second)

    def contains(self, message: Any) -> bool:
        """Whether a site has one value per example; a site outside the plate of the data is shared by all examples."""
        if self.name is None:
            return True
        # the plates of the model decide: those of the guide may have other names
        known = self.local.get(message["name"])
        if known is not None:
            return known
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
        if inside and self.dim == -1:  # the usual cases, for speed
            if x.dim() == 1 + event_dim:
                return x.unsqueeze(-2 - event_dim)
            if x.dim() == 2 + event_dim and particles == -2:
                return x
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

    def scale(self, message: Any) -> float | Tensor:
        """Return the scale of a site: one number, or one number per example, ``(batch,)``.

        Raises:
            ValueError: the scale differs within an example, or at a site that all examples share.
        """
        scale = message["scale"]
        if not isinstance(scale, Tensor) or scale.dim() == 0:
            return scale
        if scale.numel() == 1:
            return scale.reshape(())
        per_row = self.name is not None and self.contains(message) and scale.dim() >= -self.dim
        if not per_row or scale.numel() != scale.shape[self.dim]:
            raise ValueError(
                f"scale: expected a number, or one number per example, at site {message['name']!r}, got a tensor of "
                f"shape {tuple(scale.shape)} that differs within an example or at a site that all examples share: use "
                "one number"
            )
        return scale.reshape(-1)


def names_of(stack: Iterable[Any]) -> list[str]:
    """Return the names of plates."""
    return [frame.name for frame in stack]


def same(a: Any, b: Any) -> bool:
    """Whether two scales or masks are equal; tensors that are not :func:`readable` count as equal."""
    if a is b:
        return True
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return a == b
    if not readable(a, b):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool((a == b).all())
    number, tensor = (b, a) if isinstance(a, Tensor) else (a, b)
    # a number and a tensor that holds it are one scale, which a mask is not
    return tensor.dim() == 0 and not isinstance(number, bool) and number == float(tensor)


def readable(a: Any, b: Any) -> bool:
    """Whether two scales or masks can be compared without waiting for a device, and not while a step is compiled."""
    return a is b or all(type(x) is Tensor and x.device.type == HOST for x in (a, b) if isinstance(x, Tensor))
