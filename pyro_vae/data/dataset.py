"""A data set: a name and three splits, each a tensor with optional labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pyro_vae.data.lazy import LazyRows

__all__ = ["Dataset", "Levels", "Split"]

#: Rows that are looked at together.
CHUNK = 1024


@dataclass(frozen=True, repr=False)
class Levels:
    """A transform from integers to floating-point numbers, on the device of the batch.

    Args:
        largest: what a batch is divided by: 255 for the levels of images, 1 for counts and binary values

        dtype: type of the result

    Example:
        >>> Levels(255)(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
        tensor([[0.0000, 0.2000, 1.0000]])
    """

    largest: int = 1
    dtype: torch.dtype = torch.float32

    def __repr__(self) -> str:
        return f"Levels({self.largest})"

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the batch in ``dtype``, divided by ``largest``."""
        return batch.to(self.dtype) if self.largest == 1 else batch.to(self.dtype) / self.largest


# eq=False: comparing fields would need the truth value of a whole tensor
@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """One split of a data set: training, validation or test examples.

    Args:
        x: the examples, of shape ``(n, *shape)``: a float32 tensor; one of integers with a transform to float32; or
            rows that are read by batch
        y: labels, int64 of shape ``(n,)``, or None
        transform: a callable from a batch ``(b, *shape)`` to a batch of the same shape, which training applies to
            each batch when it is used; None for no transform. One that returns only zeros and ones has an attribute
            ``draws_bits = True``

    Raises:
        ValueError: ``y`` does not hold one label per example.

    Example:
        >>> split = Split(torch.zeros(10, 8, 8), torch.arange(10))
        >>> len(split), split[:4], split[torch.tensor([9, 0])].y.tolist()
        (10, Split(4 x (8, 8), labels), [9, 0])
    """

    x: Tensor
    y: Tensor | None = None
    transform: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.y is not None and tuple(self.y.shape) != tuple(self.x.shape[:1]):
            raise ValueError(
                f"y: expected shape {tuple(self.x.shape[:1])}, one label per row of x, got {tuple(self.y.shape)}"
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, part: slice | Tensor) -> Split:
        # a single row would lose the batch dimension
        if not (isinstance(part, slice) or (isinstance(part, Tensor) and part.ndim == 1)):
            raise TypeError(
                f"index: expected a slice or a tensor of one dimension, got {part!r}. Use split.x[i] for one example"
            )
        return replace(self, x=self.x[part], y=None if self.y is None else self.y[part])

    def __repr__(self) -> str:
        parts = [f"{len(self)} x {tuple(self.x.shape[1:])}"]
        parts += [] if self.y is None else ["labels"]
        parts += [] if self.transform is None else [f"transform={self.transform}"]
        return f"Split({', '.join(parts)})"

    @property
    def binary(self) -> bool:
        """Whether a model sees only zeros and ones, as stored or as the transform samples them."""
        if getattr(self.transform, "draws_bits", False):
            return True
        # grey data end the search in the first chunk
        return all(bool(((rows == 0) | (rows == 1)).all()) for rows in self.chunks())

    def chunks(self) -> Iterator[Tensor]:
        """Yield the examples some at a time: as numbers, without a transform that draws at random."""
        plain = replace(self, transform=self.transform if isinstance(self.transform, Levels) else None)
        return (plain.batch(slice(i, min(i + CHUNK, len(self)))) for i in range(0, len(self), CHUNK))

    def batch(self, part: slice | Tensor = slice(None)) -> Tensor:  # noqa: B008 (a slice is immutable)
        """Return examples in memory as a program sees them, transformed; all of them by default."""
        rows = self.x[part]
        rows = rows[:] if isinstance(rows, LazyRows) else torch.as_tensor(rows)
        return rows if self.transform is None else self.transform(rows)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A named data set in three splits.

    Args:
        name: name of the data set
        train: the split to fit parameters on
        valid: the split for early stopping and the choice of settings
        test: the split to report results on

    Raises:
        ValueError: the splits differ in the shape of an example.

    Example:
        >>> Dataset("blank", *(Split(torch.zeros(n, 28, 20)) for n in (6, 2, 2)))
        Dataset('blank': train 6, valid 2, test 2; shape (28, 20); binary)
    """

    name: str
    train: Split
    valid: Split
    test: Split

    def __post_init__(self) -> None:
        shapes = [tuple(split.x.shape[1:]) for split in self.splits]
        if len(set(shapes)) > 1:
            raise ValueError(f"train, valid, test: expected examples of one shape, got {shapes}")

    def __repr__(self) -> str:
        sizes = f"train {len(self.train)}, valid {len(self.valid)}, test {len(self.test)}"
        parts = [f"{self.name!r}: {sizes}", f"shape {self.shape}", self.kind]
        parts += [] if self.train.y is None else ["labels"]
        parts += [] if self.train.transform is None else [f"train transform {self.train.transform}"]
        return f"Dataset({'; '.join(parts)})"

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """The three splits: train, valid, test."""
        return self.train, self.valid, self.test

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.train.x.shape[1:])

    @property
    def kind(self) -> Literal["binary", "grey"]:
        """``"binary"`` if every split has only zeros and ones, otherwise ``"grey"``."""
        return "binary" if all(split.binary for split in self.splits) else "grey"
