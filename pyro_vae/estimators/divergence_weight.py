"""The weight of the divergence from the prior: beta, free bits and a capacity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import ClassVar

from torch import Tensor

from pyro_vae.estimators.mean_penalty import scores_of
from pyro_vae.estimators.penalties import Capacity, FreeBits
from pyro_vae.trace import Recorder, Site, Terms

__all__ = ["DivergenceWeight"]


class DivergenceWeight:
    """Beta, or the target of a capacity, at the present step, and the penalties of an estimator.

    Attributes:
        beta: weight of the divergence, or a schedule of it
        free_bits: nats below which the divergence costs nothing
        capacity: a target for the divergence, None in most estimators
        step: number of training steps so far
    """

    draws: ClassVar[type[Recorder]]
    beta: float | Callable[[int], float]
    free_bits: FreeBits
    capacity: Capacity | None
    step: int
    _scheduled: Tensor | None

    @property
    def scheduled(self) -> bool:
        """Whether :meth:`schedule_value` depends on the step."""
        return self.capacity is not None or callable(self.beta)

    def schedule_value(self) -> float | Tensor:
        """Return beta, or the target of the capacity, at the present step."""
        if self._scheduled is not None:
            return self._scheduled
        schedule = self.beta if self.capacity is None else self.capacity
        value = schedule(self.step) if callable(schedule) else schedule
        number = isinstance(value, Real) and not isinstance(value, bool) and 0 <= value < float("inf")
        if not number and not isinstance(value, Tensor):
            raise ValueError(f"beta: expected a number of at least 0, got {value!r} at step {self.step}")
        return value

    @contextmanager
    def scheduled_at(self, value: Tensor) -> Iterator[None]:
        """Use a tensor for :meth:`schedule_value`: a compiled step takes it as an argument."""
        self._scheduled = value if self.scheduled else None
        try:
            yield
        finally:
            self._scheduled = None

    def current_beta(self) -> float | Tensor:
        """Return the weight of the divergence at the present step: 0 under a capacity, which penalizes it instead."""
        return self.schedule_value() if self.capacity is None else 0.0

    def penalty(self, terms: Terms, beta: float | Tensor) -> float | Tensor:
        """Return what free bits and capacity add to the loss of a batch, ``()``."""
        local, scores = terms.split()[0], scores_of(self.draws, terms)
        if not local.latent:
            name = "capacity" if self.capacity is not None else "free_bits"
            raise ValueError(f"{name}: expected none, as no example has a latent: leave it out")
        total = beta * self.free_bits.hinge(local, scores) if self.free_bits.nats else 0.0
        if self.capacity is not None:
            total = total + self.capacity.distance(local, self.schedule_value(), scores)
        return total

    def weight(self, site: Site, beta: float | Tensor) -> float | Tensor:
        """Return the weight of the divergence of a latent site; a capacity leaves sites that examples share at 1."""
        return beta if site.local or self.capacity is None else 1.0
