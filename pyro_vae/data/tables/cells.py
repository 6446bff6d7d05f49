"""How the values of a column are written in a table, and their conversion to numbers that a float32 can hold."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from pyro_vae.data.tables.values import blank, check_read, each, objects

__all__ = ["Cells", "Numbers"]

#: Largest number of decimals of a column whose numbers are rounded to them.
MOST_PLACES = 6


@dataclass(frozen=True)
class Cells(ABC):
    """How values are written. Numbers are in the unit of the column, NaN where a value is missing."""

    @property
    def has_zero(self) -> bool:
        """Whether 0 is the zero of the quantity, such as of an amount."""
        return True

    def __str__(self) -> str:
        """Return the unit in words, where values do not show it."""
        return ""

    def inside(self, low: float, high: float) -> tuple[float, float]:
        """Return the ends of a range, inside of which rounded values stay."""
        return low, high

    @abstractmethod
    def read(self, values: np.ndarray) -> np.ndarray:
        """Return values as float64.

        Raises:
            ValueError: a value is not written like this; the message names the first one and its row.
        """

    @abstractmethod
    def write(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers, float32 or float64, as values."""


@dataclass(frozen=True)
class Numbers(Cells):
    """Numbers of Python or numpy, or text that Python reads as numbers.

    Args:
        whole: whether values are integers, to which numbers are rounded
        origin: what is subtracted from the values, so that a float32 holds the rest
        places: number of decimals to which numbers are rounded; None for the digits of a float32

    Example:
        >>> Numbers(whole=True, origin=10**12).read(np.array([10**12 + 1, 10**12 + 2]))
        array([1., 2.])
    """

    whole: bool = False
    origin: int | float = 0
    places: int | None = None

    @property
    def has_zero(self) -> bool:
        """Whether 0 is the zero of the quantity."""
        return not self.origin

    def inside(self, low: float, high: float) -> tuple[float, float]:
        """Return the ends of a range rounded inwards to the decimals, unless no two such numbers are in it."""
        if self.places is None:
            return low, high
        size = 10**self.places
        ends = math.ceil((low + self.origin) * size) / size, math.floor((high + self.origin) * size) / size
        return (ends[0] - self.origin, ends[1] - self.origin) if ends[0] < ends[1] else (low, high)

    def read(self, values: np.ndarray) -> np.ndarray:
        """Return values as float64."""
        if values.dtype.kind == "O":
            found = each(parse, values.tolist(), lambda v: v if isinstance(v, (bool, int, float)) else None)
            check_read("numbers", values, found)
            values = objects(found)
        if values.dtype.kind not in "Ofiub":
            raise ValueError(f"expected numbers, got {values[0]} in row 0")
        gone = blank(values)
        # integers are exact until the origin is subtracted
        exact = values.astype(object) if self.origin else values
        return np.where(gone, np.nan, (np.where(gone, self.origin, exact) - self.origin).astype(float))

    def write(self, numbers: np.ndarray) -> np.ndarray:
        """Return integers (objects with None where one is missing), or floats with the decimals of the column."""
        if not self.whole:
            found = (shortest(numbers) if numbers.dtype == np.float32 else numbers) + self.origin
            return found if self.places is None else np.round(found, self.places)
        return integers(numbers, int(self.origin))


def shortest(numbers: np.ndarray) -> np.ndarray:
    """Return each float32 as the float64 with the fewest decimals that rounds to it.

    Example:
        >>> float(np.float32(0.1)), float(shortest(np.array([0.1], np.float32))[0])
        (0.10000000149011612, 0.1)
    """
    found = numbers.astype(float)
    size = np.abs(found)
    (todo,) = np.nonzero((size > 1e-15) & (size < 1e15))
    for digits in (6, 7, 8):
        places = digits - 1 - np.floor(np.log10(size[todo])).astype(int)
        # powers of ten are exact in a float64 up to the 22nd
        up, down = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
        short = np.round(found[todo] * up / down) / up * down
        fits = short.astype(np.float32) == numbers[todo]
        found[todo[fits]] = short[fits]
        todo = todo[~fits]
    return found


def places_of(numbers: np.ndarray) -> int | None:
    """Return the number of decimals of numbers, None if they have more than a float32 holds.

    Example:
        >>> places_of(np.array([1.5, 2.25])), places_of(np.array([1 / 3]))
        (2, None)
    """
    exact = shortest(numbers) if numbers.dtype == np.float32 else numbers.astype(float)
    return next((places for places in range(MOST_PLACES + 1) if (np.round(exact, places) == exact).all()), None)


def integers(numbers: np.ndarray, origin: int = 0) -> np.ndarray:
    """Return rounded numbers plus an integer; objects with None where one is missing."""
    gone = np.isnan(numbers)
    rounded = np.round(np.where(gone, 0, numbers))
    fits = np.abs(rounded).max(initial=0) + abs(origin) < 2**62
    found = rounded.astype(np.int64) + origin if fits else np.array([int(v) + origin for v in rounded], object)
    return np.where(gone, None, found.astype(object)) if gone.any() else found


def parse(text: str) -> int | float | None:
    """Return the number in a text, None if it is not a number.

    Example:
        >>> parse("12"), parse("-1.5e3"), parse("1_000")
        (12, -1500.0, None)
    """
    if "_" in text:  # Python accepts it in a number
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None
