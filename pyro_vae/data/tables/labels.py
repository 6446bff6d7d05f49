"""The column types of labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.data.tables.cells import Cells, parse
from pyro_vae.data.tables.column import Column
from pyro_vae.data.tables.values import blank, is_blank, objects, plain
from pyro_vae.distributions import LogCategorical, OnGrid, OrderedLogistic
from pyro_vae.scales import positive

__all__ = ["Binary", "Categorical", "Labels", "Ordinal"]

Own = TypeVar("Own", bound="Labels")


@dataclass(frozen=True, repr=False)
class Labels(Column):
    """The base of columns of labels, encoded as the codes 0, 1, 2, ... of ``values``."""

    values: tuple[Any, ...] = (0, 1)
    #: Smallest number of labels, and the text between two labels in a description.
    least: ClassVar[int] = 2
    between: ClassVar[str] = ", "

    def __post_init__(self) -> None:
        if len(self.values) < self.least or len(set(self.values)) < len(self.values):
            number = f"{self.least} or more different values" if self.least > 1 else "different values"
            raise ValueError(f"values: expected {number} of {self.name!r}, got {self.values}")

    @classmethod
    def of(cls: type[Own], name: str, numbers: np.ndarray, cells: Cells) -> Own:
        """Return a column of all labels that occur, in their order, numbers before text."""
        return cls(name, in_order(numbers.tolist()), cells=cells)

    def to_numbers(self, values: np.ndarray) -> np.ndarray:
        """Return the codes of labels, NaN where one is missing."""
        found, wrong = self.checked(values)
        if wrong.any():
            raise ValueError(
                f"expected one of {self.values}, got {sorted(set(map(str, values[wrong].tolist())))[:5]}, the first "
                f"in row {int(wrong.argmax())}. Add them to the column, or infer it from all data"
            )
        return found

    def checked(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the codes of labels, NaN for a label that is missing or unknown; and a mask of the unknown ones."""
        gone = blank(values)
        labels = (
            values if self.cells == type(self).cells else np.where(gone, None, self.cells.read(values).astype(object))
        )
        codes: dict[Any, float] = {value: float(i) for i, value in enumerate(self.values)}
        text = any(isinstance(value, str) for value in self.values)
        found = [
            None if absent else code(value, codes, text) for value, absent in zip(labels.tolist(), gone, strict=True)
        ]
        numbers = np.array(found, float)
        return numbers, np.isnan(numbers) & ~gone

    def encode(self, values: Any) -> np.ndarray:
        """Return labels as codes, NaN where one is missing."""
        marked = any(isinstance(value, str) and is_blank(value) for value in self.values)
        return self.codes(plain(values, labels=marked))

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return the labels of codes, None where one is missing."""
        gone = np.isnan(x)
        codes = np.clip(np.round(np.where(gone, 0, x)), 0, len(self.values) - 1).astype(int)
        if self.cells != type(self).cells:
            return self.cells.write(np.where(gone, np.nan, np.array(self.values, float)[codes]))
        kinds = {type(value) for value in self.values}
        if not gone.any() and len(kinds) == 1 and kinds <= {bool, int, float, str}:
            labels = np.array(self.values)
            if int not in kinds or labels.dtype.kind in "iu":  # numpy makes floats of 0 and 2**63
                return labels[codes]
        found = objects(self.values)[codes]
        found[gone] = None
        return found

    def context(self, x: Tensor) -> Tensor:
        """Return the code as a one-hot vector, zeros for a missing value."""
        return (x.unsqueeze(-1) == torch.arange(len(self.values), device=x.device)).to(x.dtype)

    @property
    def entries(self) -> tuple[str, ...]:
        """The label of each entry of the one-hot vector."""
        return tuple([f"{self.name}={value}" for value in self.values])

    def nearest(self, x: Tensor) -> Tensor:
        """Return the nearest codes."""
        return x.round().clamp(0, len(self.values) - 1)

    def __str__(self) -> str:
        some = [*map(str, self.values[:6]), *(["..."] if len(self.values) > 6 else [])]
        return f"{self.between.join(some)} {self.cells}".strip()


def code(value: Any, codes: dict[Any, float], text: bool) -> float | None:
    """Return the code of a label; text is read as a number if no label is text, and a number as text otherwise."""
    found = codes.get(value)
    if found is None and isinstance(value, str) and not text:
        return codes.get(parse(value))
    return codes.get(str(value)) if found is None and text else found


def in_order(labels: Iterable[Any]) -> tuple[Any, ...]:
    """Return all different labels in their order, numbers before text."""
    return tuple(sorted(set(labels), key=lambda v: (isinstance(v, str), 0 if isinstance(v, str) else v, str(v))))


@dataclass(frozen=True, repr=False)
class Binary(Labels):
    """Two values: Bernoulli distribution.

    Args:
        values: the two values, in the order of their codes 0 and 1

    Raises:
        ValueError: there are not two different values.

    Example:
        >>> Binary("smoker", ("no", "yes")).encode(np.array(["yes", "no"]))
        array([1., 0.])
    """

    outputs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) != 2:
            raise ValueError(f"values: expected two values of {self.name!r}, got {self.values}")

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a Bernoulli distribution."""
        return dist.Bernoulli(logits=raw[..., 0])

    def features(self, x: Tensor, *units: Tensor) -> Tensor:
        """Return the code."""
        return x.unsqueeze(-1)


@dataclass(frozen=True, repr=False)
class Categorical(Labels):
    """Values without an order: categorical distribution.

    Args:
        values: all values, in the order of their codes

    Example:
        >>> Categorical("colour", ("red", "green", "blue")).features(torch.tensor([2.0]))
        tensor([[0., 0., 1.]])
    """

    least: ClassVar[int] = 1

    @property
    def outputs(self) -> int:
        """One output per value."""
        return len(self.values)

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return a categorical distribution over the codes."""
        return OnGrid(LogCategorical(raw.log_softmax(-1)), len(self.values), ordered=False)

    def features(self, x: Tensor, *units: Tensor) -> Tensor:
        """Return the code as a one-hot vector, zeros for a missing value."""
        return self.context(x)


@dataclass(frozen=True, repr=False)
class Ordinal(Labels):
    """Ordinal values: ordered logistic distribution, with location and thresholds from the decoder.

    Args:
        values: all values, from the lowest to the highest

    Example:
        >>> Ordinal("grade", ("poor", "fair", "good")).features(torch.tensor([0.0, 2.0]))
        tensor([[-1.],
                [ 1.]])
    """

    between: ClassVar[str] = " < "

    @classmethod
    def of(cls, name: str, numbers: np.ndarray, cells: Cells) -> Ordinal:
        """Return a column of all numbers that occur; text has no order."""
        if any(isinstance(value, str) for value in numbers.tolist()):
            raise ValueError(
                f"expected numbers, as text has no order. Write Ordinal({'<'.join(in_order(numbers.tolist()))[:60]}) "
                "with the values from the lowest to the highest"
            )
        return super().of(name, numbers, cells)

    @property
    def outputs(self) -> int:
        """The location, and the distances between thresholds."""
        return len(self.values) - 1

    def family(self, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return an ordered logistic distribution whose thresholds start at minus half their number."""
        first = torch.full_like(raw[..., 0], -(len(self.values) - 2) / 2)
        return OnGrid(OrderedLogistic(raw[..., 0], positive(raw[..., 1:]), first), len(self.values))

    def features(self, x: Tensor, *units: Tensor) -> Tensor:
        """Return the code, rescaled to [-1, 1]."""
        return (2 * x / (len(self.values) - 1) - 1).unsqueeze(-1)
