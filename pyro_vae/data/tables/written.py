"""Numbers in text: plain ones, and those with thousands separators, decimal commas, percent or currency signs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import category

import numpy as np

from pyro_vae.data.tables.cells import Cells, Numbers, parse
from pyro_vae.data.tables.values import blank, check_read, each, objects, unread

__all__ = ["Written", "read_numbers"]

#: Separators of thousands and decimals, in the order in which they are tried: 1,234 is read as 1234, and 1,5 as 1.5.
SEPARATORS = ((",", "."), (".", ","), (" ", "."), (" ", ","), ("'", "."))
#: Other spaces, minus signs and apostrophes.
SAME = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2212": "-", "\u2019": "'"})
#: Sign, one character before the digits, sign, digits with their separators, one character after them.
NUMBER = re.compile(r"([+-]?)\s*([^\d\s.,'+-]?)(\s*)([+-]?)((?:[.,]?\d[\d.,' ]*)?\d[.,]?)(\s*)([^\d\s.,'+-]?)")
#: Numbers with a leading zero, which are labels, such as postcodes.
CODE = re.compile(r"[+-]?0\d")


@dataclass(frozen=True)
class Written(Cells):
    """Numbers written for people, such as ``$1,234.50``, ``1.234,5`` or ``45 %``; the unit is that of the text.

    Args:
        prefix, suffix: text before and after the digits
        thousands: separator of thousands
        decimal: separator of decimals
        places: number of decimals
        negative: ``"()"`` if negative numbers are in parentheses, as in accounts

    Example:
        >>> Written(prefix="$", thousands=",", places=2).write(np.array([-1234.5, np.nan])).tolist()
        ['-$1,234.50', None]
    """

    prefix: str = ""
    suffix: str = ""
    thousands: str = ""
    decimal: str = "."
    places: int = 0
    negative: str = "-"

    def value(self, text: str) -> float | None:
        """Return the number in a text, None if it is not written like this."""
        inside = self.negative == "()" and text.startswith("(") and text.endswith(")")
        found = NUMBER.fullmatch((text[1:-1] if inside else text).translate(SAME))
        if found is None or (inside and (found[1] or found[4])):
            return None
        sign, prefix, _, minus, digits, _, suffix = found.groups()
        if (sign and minus) or prefix not in ("", self.prefix.strip()) or suffix not in ("", self.suffix.strip()):
            return None
        groups = rf"[1-9]\d{{0,2}}(?:{re.escape(self.thousands)}\d{{3}})+|" if self.thousands else ""
        if not re.fullmatch(rf"(?:{groups}\d*)(?:{re.escape(self.decimal)}\d*)?", digits):
            return None
        digits = digits.replace(self.thousands, "") if self.thousands else digits
        number = (-1 if inside else 1) * float(sign + minus + digits.replace(self.decimal, "."))
        # without its sign a percentage may have been written as a proportion
        return None if self.suffix.strip() == "%" and not suffix and number else number

    def read(self, values: np.ndarray) -> np.ndarray:
        """Return text as float64; numbers stay what they are."""
        found = each(self.value, values.tolist(), lambda value: value)
        check_read(f"numbers such as {self.text(1234.5)}", values, found)
        return np.array(found, float)

    def write(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers as text, rounded to the decimals of the column."""
        return objects(None if v != v else self.text(v) for v in numbers.astype(float).tolist())

    def text(self, value: float) -> str:
        """Return one number as text."""
        rounded = f"{abs(value):,.{self.places}f}"
        minus = "-" if value < 0 and rounded.strip("0.,") else ""
        digits = rounded.translate(str.maketrans({",": self.thousands, ".": self.decimal}))
        written = f"{self.prefix}{digits}{self.suffix}"
        return f"({written})" if minus and self.negative == "()" else minus + written


def read_numbers(values: np.ndarray, *, codes: bool = True) -> tuple[Cells | None, np.ndarray, Any]:
    """Return how all present values of a column are written as numbers.

    Args:
        values: a :func:`plain` array of objects
        codes: whether numbers with a leading zero, such as 007, are labels

    Returns:
        How they are written, or None if some cannot be read as numbers, or are labels; a mask of those that the best
        way to read them cannot read; and the numbers, as Python objects.
    """
    cells = values.tolist()
    best: tuple[Cells | None, np.ndarray, Any] | None = None
    for written in (None, *ways(cells)):
        found = each(parse if written is None else written.value, cells, number)
        bad = unread(values, found)
        if best is None or bad.sum() < best[1].sum():
            best = (Numbers() if written is None else written), bad, found
        if not bad.any():
            break
    named = codes and isinstance(best[0], Numbers) and any(isinstance(v, str) and CODE.match(v) for v in cells)
    if named:
        return None, ~blank(values), []
    if 0 < best[1].sum() < (~blank(values)).sum():
        check_one_way(values, best[1])
    return (None, *best[1:]) if best[1].any() else best


def check_one_way(values: np.ndarray, wrong: np.ndarray) -> None:
    """Raise if each cell is a number, but no way to write numbers reads all of them."""
    present = set(values[~blank(values)].tolist())
    texts = {v for v in present if isinstance(v, str)}
    if all(number(v) is not None for v in present - texts) and all(
        parse(text) is not None or any(way.value(text) is not None for way in ways([text])) for text in texts
    ):
        row, other = int(wrong.argmax()), next(v for v, w in zip(values, ~wrong & ~blank(values), strict=True) if w)
        raise ValueError(
            f"expected numbers written in one way, such as {other!r}, got {values[row]!r} in row {row}. Write them "
            "alike, or choose the type Categorical"
        )


def number(value: Any) -> Any:
    """Return a number, None for all other values."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def ways(cells: Sequence[Any]) -> Iterator[Written]:
    """Yield the ways in which numbers can be written with the signs of these cells."""
    texts = {v for v in cells if isinstance(v, str)}
    accounts = {v for v in texts if v[:1] + v[-1:] == "()"}
    bare = sorted(v[1:-1] if v in accounts else v for v in texts)
    found = [m.groups() for m in (NUMBER.fullmatch(v.translate(SAME)) for v in bare) if m]
    prefix = next((p + space for _, p, space, *_ in found if p and category(p) == "Sc"), "")
    suffix = next((space + s for *_, space, s in found if s and (s == "%" or category(s) == "Sc")), "")
    for thousands, decimal in SEPARATORS:
        used = any(thousands in digits for *_, digits, _, _ in found)
        places = max((len(d.rpartition(decimal)[2]) for *_, d, _, _ in found if decimal in d), default=0)
        yield Written(prefix, suffix, thousands if used else "", decimal, places, "()" if accounts else "-")
