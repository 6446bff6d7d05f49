"""How long a training lasts: a budget in steps, particles or seconds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Budget", "Particles", "Seconds", "Spent", "Steps"]


@dataclass
class Spent:
    """What a training has used.

    Attributes:
        steps: optimizer steps
        particles: samples of the latents, over all examples of all batches
        seconds: time in steps, without evaluation
    """

    steps: int = 0
    particles: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Budget(ABC):
    """The amount of one resource that every training gets.

    Args:
        amount: the amount

    Raises:
        ValueError: the amount is not above 0.
    """

    amount: float
    #: The name of the resource.
    unit: ClassVar[str]

    def __post_init__(self) -> None:
        if not 0 < self.amount < float("inf"):
            raise ValueError(f"budget: expected {type(self).__name__} of a number above 0, got {self.amount}")

    @abstractmethod
    def used(self, spent: Spent) -> float:
        """Return the share of the budget that is used."""


class Steps(Budget):
    """A number of optimizer steps.

    Example:
        >>> Steps(100).used(Spent(steps=25))
        0.25
    """

    unit = "steps"

    def used(self, spent: Spent) -> float:
        """Return the share of the steps."""
        return spent.steps / self.amount


class Particles(Budget):
    """A number of samples of the latents, over all examples: the same compute for each estimator.

    Example:
        >>> Particles(1000).used(Spent(particles=128))
        0.128
    """

    unit = "particles"

    def used(self, spent: Spent) -> float:
        """Return the share of the samples."""
        return spent.particles / self.amount


class Seconds(Budget):
    """A number of seconds in steps; the result depends on the machine and is not reproducible.

    Example:
        >>> Seconds(60).used(Spent(seconds=15.0))
        0.25
    """

    unit = "seconds"

    def used(self, spent: Spent) -> float:
        """Return the share of the time."""
        return spent.seconds / self.amount
