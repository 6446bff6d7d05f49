"""Dates, times and durations as numbers with a unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from pyro_vae.data.tables.cells import Cells, integers
from pyro_vae.data.tables.values import blank, check_read, each, objects, unread

__all__ = ["Dates", "Durations", "of_times", "read_dates"]

#: Units from the coarsest to the finest, as numpy names them, and their names in English.
UNITS = {"D": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "ms", "us": "µs", "ns": "ns"}
#: Ways to write a date and the time after it, in the order in which they are tried.
DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y-%m")
DAYS += ("%Y.%m.%d", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%b %Y", "%B %Y", "%m/%Y")
#: Ways to write a year without its century, which are refused: 65 can be 1965 or 2065.
SHORT = ("%y-%m-%d", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%d-%b-%y", "%d %b %y")
TIMES = ("", " %H:%M:%S", "T%H:%M:%S", " %H:%M", "T%H:%M", " %H:%M:%S.%f", "T%H:%M:%S.%f")
TIMES += (" %I:%M %p", " %I:%M:%S %p")
ZONE = re.compile(r"(?<=:\d\d)(\.\d+)?(Z|[+-]\d\d:?\d\d)$")
#: Number of cells from which the formats to try are found.
FIRST = 20


@dataclass(frozen=True)
class Dates(Cells):
    """Dates and times as the time since an origin.

    Args:
        origin: the date of 0, as ISO text, in UTC if there is a zone
        unit: unit of the numbers as in numpy: ``"D"``, ``"h"``, ``"m"``, ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``
        format: how dates are written in text, as in ``datetime.strftime``; empty for datetime64
        zone: offset of the times in text from UTC, such as ``"+01:00"`` or ``"Z"``; empty for none

    Example:
        >>> dates = Dates("2024-01-31", format="%d.%m.%Y")
        >>> dates.read(np.array(["01.02.2024", None], object)), dates.write(np.array([29.0])).tolist()
        (array([ 1., nan]), ['29.02.2024'])
    """

    origin: str
    unit: str = "D"
    format: str = ""
    zone: str = ""

    @property
    def has_zero(self) -> bool:
        """False: 0 is the first date, not the zero of a quantity."""
        return False

    def __str__(self) -> str:
        return f"in {UNITS[self.unit]}"

    def read(self, values: np.ndarray) -> np.ndarray:
        """Return dates as float64."""
        if values.dtype.kind == "O":
            found = each(lambda text: moment(text, self.format), values.tolist(), lambda value: None)
            check_read(f"dates such as {self.write(np.zeros(1))[0]}", values, found)
            values = np.array(found, "M8[us]")
        elif values.dtype.kind != "M":
            raise ValueError(f"expected dates, got {values[0]} in row 0")
        return (in_days(values) - np.datetime64(self.origin)) / np.timedelta64(1, self.unit)

    def write(self, numbers: np.ndarray) -> np.ndarray:
        """Return dates, rounded to the unit."""
        dates = np.datetime64(self.origin) + times(numbers, self.unit)
        if not self.format:
            return dates
        local = (dates + np.timedelta64(int(offset(self.zone).total_seconds()), "s")).astype("M8[us]").tolist()
        return objects(None if date is None else date.strftime(self.format) + self.zone for date in local)


@dataclass(frozen=True)
class Durations(Cells):
    """Durations (timedelta64) as numbers with a unit.

    Args:
        unit: unit of the numbers, as in :class:`Dates`

    Example:
        >>> Durations("h").read(np.array([90, 30], "m8[m]"))
        array([1.5, 0.5])
    """

    unit: str = "s"

    def __str__(self) -> str:
        return f"in {UNITS[self.unit]}"

    def read(self, values: np.ndarray) -> np.ndarray:
        """Return durations as float64."""
        if values.dtype.kind != "m":
            raise ValueError(f"expected durations, got {values[0]} in row 0")
        return in_days(values) / np.timedelta64(1, self.unit)

    def write(self, numbers: np.ndarray) -> np.ndarray:
        """Return durations, rounded to the unit."""
        return times(numbers, self.unit)


def of_times(values: np.ndarray, format: str = "", zone: str = "") -> Cells:
    """Return cells for datetime64 or timedelta64, with the coarsest unit in which all of them are integers."""
    values = in_days(values)
    present = values[~blank(values)]
    origin = present.min() if values.dtype.kind == "M" else np.timedelta64(0, "D")
    apart = present - origin
    unit = next((u for u in UNITS if not (apart % np.timedelta64(1, u)).astype(np.int64).any()), "ns")
    if values.dtype.kind == "m":
        return Durations(unit)
    return Dates(str(np.datetime_as_string(origin, unit="auto")), unit, format, zone)


def in_days(values: np.ndarray) -> np.ndarray:
    """Return times; those of months and years, which have no fixed length, in days."""
    return values.astype(f"{values.dtype.kind}8[D]") if np.datetime_data(values.dtype)[0] in "YM" else values


def times(numbers: np.ndarray, unit: str) -> np.ndarray:
    """Return rounded numbers as timedelta64, NaT for NaN."""
    gone = np.isnan(numbers)
    found = integers(np.where(gone, 0, numbers)).astype(f"m8[{unit}]")
    found[gone] = np.timedelta64("NaT")
    return found


def moment(text: str, format: str) -> datetime | None:
    """Return the time in a text, in UTC if it has a zone; None if it is not written in this format."""
    found = ZONE.search(text) if ":" in text else None
    try:
        time = datetime.strptime(text[: found.start(2)] if found else text, format)
    except ValueError:
        return None
    return time - offset(found[2]) if found else time


def offset(zone: str) -> timedelta:
    """Return an offset from UTC."""
    if zone in ("", "Z"):
        return timedelta(0)
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    return (-1 if zone[0] == "-" else 1) * timedelta(hours=hours, minutes=minutes)


def read_dates(values: np.ndarray) -> tuple[Cells | None, np.ndarray, list[datetime | None]]:
    """Return how all present values of a column are written as dates.

    Args:
        values: a :func:`plain` array of objects

    Returns:
        How they are written, or None if some cannot be read as dates; a mask of those that the best format cannot
        read; and all of them as datetimes.

    Raises:
        ValueError: day and month could be the other way round in every value.
    """
    cells = values.tolist()
    bad, best = ~blank(values), None
    some = [v for v in dict.fromkeys(cells) if isinstance(v, str) and v[:1].isalnum() and len(v) < 40][:FIRST]
    some = [v for v in some if any(map(str.isdigit, v))]
    formats = [d + t for t, d in product(TIMES, DAYS) if any(moment(v, d + t) for v in some)]
    if len(some) < len(set(cells) - {None}) / 2 and len(some) < FIRST:
        return None, bad, []
    for format in formats:
        found = each(partial(moment, format=format), cells, lambda value: None)
        wrong = unread(values, found)
        if best is not None and not bad.any() and not wrong.any() and found != best[1]:
            text = next(v for v in cells if v is not None)
            raise ValueError(
                f"expected dates in one way, got {text!r}, in which day and month can be either. Write them as "
                "2024-01-31"
            )
        if wrong.sum() < bad.sum():
            bad, best = wrong, (format, found)
    if bad.any() or best is None:
        check_one_way(cells, bad, formats)
        return None, bad, []
    zones = {found[2] if (found := ZONE.search(v)) else "" for v in cells if v is not None and ":" in v}
    if "" in zones and len(zones) > 1:
        row = next(i for i, v in enumerate(cells) if v is not None and not ZONE.search(v))
        raise ValueError(f"expected times that all have a zone, got {cells[row]!r} in row {row}. Add the zone")
    zones -= {""}
    zone = zones.pop() if len(zones) == 1 else "+00:00" if zones else ""
    return of_times(np.array(best[1], "M8[us]"), best[0], zone), bad, best[1]


def check_one_way(cells: Sequence[Any], bad: np.ndarray, formats: Sequence[str]) -> None:
    """Raise if all cells are dates in one of several formats, or dates with a year of two digits."""
    texts = [v for v in dict.fromkeys(cells) if v is not None]
    if not all(isinstance(v, str) and any(map(str.isdigit, v)) for v in texts):
        return
    row = int(bad.argmax())
    if any(all(moment(v, format) for v in texts) for format in SHORT):
        raise ValueError(
            f"expected dates with a year of four digits, got {cells[row]!r} in row {row}. Write them as 2024-01-31, "
            "or choose the type Categorical"
        )
    if formats and all(any(moment(v, format) for format in formats) for v in texts):
        other = next(v for v, wrong in zip(cells, bad, strict=True) if v is not None and not wrong)
        raise ValueError(
            f"expected dates in one way, such as {other!r}, got {cells[row]!r} in row {row}. Write them as 2024-01-31"
        )
