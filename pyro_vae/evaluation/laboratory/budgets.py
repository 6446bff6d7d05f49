"""How long a training may last, in steps, particles or seconds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Budget", "Particles", "Seconds", "Spent", "Steps"]


@dataclass
class Spent:
    """What a training has used.

    Attributes:
        steps: of the optimizer
        particles: draws of the latents for a datum, summed over the batches
        seconds: in steps alone, without evaluation
    """

    steps: int = 0
    particles: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Budget(ABC):
    """How much of one resource every training gets.

    Args:
        amount: of the resource

    Raises:
        ValueError: the amount is not above 0.
    """

    amount: float
    #: The name of the resource.
    unit: ClassVar[str]

    def __post_init__(self) -> None:
        if not 0 < self.amount < float("inf"):
            raise ValueError(f"budget: {type(self).__name__} expects a number above 0, got {self.amount}")

    @abstractmethod
    def used(self, spent: Spent) -> float:
        """Return how much of the resource is used, as a share of the amount."""


class Steps(Budget):
    """So many steps of the optimizer.

    Example:
        >>> Steps(100).used(Spent(steps=25))
        0.25
    """

    unit = "steps"

    def used(self, spent: Spent) -> float:
        """Return the share of the steps."""
        return spent.steps / self.amount


class Particles(Budget):
    """So many draws of the latents, for all data and all particles together: an equal share of compute.

    Example:
        >>> Particles(1000).used(Spent(particles=128))
        0.128
    """

    unit = "particles"

    def used(self, spent: Spent) -> float:
        """Return the share of the draws."""
        return spent.particles / self.amount


class Seconds(Budget):
    """So many seconds in steps; what they buy depends on the machine, so that no seed repeats it exactly.

    Example:
        >>> Seconds(60).used(Spent(seconds=15.0))
        0.25
    """

    unit = "seconds"

    def used(self, spent: Spent) -> float:
        """Return the share of the time."""
        return spent.seconds / self.amount
