"""Budgets of trainings that are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pyro_vae._util.validation import check_number

__all__ = ["Budget", "Particles", "Seconds", "Spent", "Steps"]


@dataclass(frozen=True)
class Budget(ABC):
    """The amount of one resource that every training gets.

    Args:
        amount: the amount

    Raises:
        ValueError: the amount is not above 0.
    """

    amount: float

    def __post_init__(self) -> None:
        check_number(f"budget {type(self).__name__}", self.amount, above=0)

    def __str__(self) -> str:
        return f"{self.amount:,} {type(self).__name__.lower()}"

    @abstractmethod
    def used(self, spent: Spent) -> float:
        """Return the share of the budget that is used."""


class Steps(Budget):
    """A number of optimizer steps.

    Example:
        >>> Steps(100).used(Spent(steps=25))
        0.25
    """

    def used(self, spent: Spent) -> float:
        """Return the share of the steps that is used."""
        return spent.steps / self.amount


class Particles(Budget):
    """A number of samples of the latents, over all examples: the same compute for each estimator.

    Example:
        >>> Particles(1000).used(Spent(particles=128))
        0.128
    """

    def used(self, spent: Spent) -> float:
        """Return the share of the samples that is used."""
        return spent.particles / self.amount


class Seconds(Budget):
    """A number of seconds in steps; the result depends on the machine and is not reproducible.

    Example:
        >>> Seconds(60).used(Spent(seconds=15.0))
        0.25
    """

    def used(self, spent: Spent) -> float:
        """Return the share of the time that is used."""
        return spent.seconds / self.amount


@dataclass
class Spent:
    """What a training has used: optimizer steps, samples of the latents, and seconds in steps."""

    steps: int = 0
    particles: int = 0
    seconds: float = 0.0
