"""What a data set is: a name and three splits, each a tensor with optional labels."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor


# eq=False: comparing fields would ask a whole tensor for one truth value.
@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """One part of a data set.

    Attributes:
        x: The observations, float32 of shape ``(n, *shape)``.
        y: Labels, int64 of shape ``(n,)``, or None where the data set has none.
        transform: None, or a callable from a batch ``(b, *shape)`` to a batch of the same shape,
            which training applies anew each time it presents a batch. One that returns only
            zeros and ones says so by an attribute `draws_bits = True`.

    Raises:
        ValueError: If `y` does not hold one label for each row of `x`.

    Example:
        >>> import torch
        >>> split = Split(torch.zeros(10, 8, 8), torch.arange(10))
        >>> len(split), split[:4], split[torch.tensor([9, 0])].y.tolist()
        (10, Split(4 x (8, 8), labels), [9, 0])
    """

    x: Tensor
    y: Tensor | None = None
    transform: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.y is not None and self.y.shape != self.x.shape[:1]:
            raise ValueError(
                f"y must have shape {tuple(self.x.shape[:1])}, one label for each row of x, "
                f"but has {tuple(self.y.shape)}"
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, part: slice | Tensor) -> "Split":
        if not (isinstance(part, slice) or (isinstance(part, Tensor) and part.ndim == 1)):
            # One row by its number would lose the batch dimension; it is split.x[i].
            raise TypeError(
                "a Split is indexed by a slice or by a tensor of one dimension and gives a "
                f"Split; got {part!r} (for the observation itself, index split.x)"
            )
        return replace(self, x=self.x[part], y=None if self.y is None else self.y[part])

    def __repr__(self) -> str:
        parts = [f"{len(self)} x {tuple(self.x.shape[1:])}"]
        if self.y is not None:
            parts.append("labels")
        if self.transform is not None:
            parts.append(f"transform={self.transform}")
        return f"Split({', '.join(parts)})"

    @property
    def binary(self) -> bool:
        """Whether a model is shown only zeros and ones (as stored, or drawn at presentation)."""
        if getattr(self.transform, "draws_bits", False):
            return True
        # In pieces: grey data answer at the first one, and no large mask is ever made.
        return all(bool(((rows == 0) | (rows == 1)).all()) for rows in self.x.split(1024))


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A named data set in three splits.

    Attributes:
        name: What the data set is called.
        train: The split to fit parameters on.
        valid: The split to choose settings and stopping times on.
        test: The split to report on.

    Raises:
        ValueError: If the splits differ in the shape of an observation.

    Example:
        >>> import torch
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
            raise ValueError(f"train, valid and test differ in their observations: {shapes}")

    def __repr__(self) -> str:
        sizes = f"train {len(self.train)}, valid {len(self.valid)}, test {len(self.test)}"
        parts = [f"{self.name!r}: {sizes}", f"shape {self.shape}", self.kind]
        if self.train.y is not None:
            parts.append("labels")
        if self.train.transform is not None:
            parts.append(f"train transform {self.train.transform}")
        return f"Dataset({'; '.join(parts)})"

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """The three splits in the order train, valid, test."""
        return self.train, self.valid, self.test

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one observation."""
        return tuple(self.train.x.shape[1:])

    @property
    def kind(self) -> Literal["binary", "grey"]:
        """'binary' if every split shows only zeros and ones, else 'grey'; told from the data."""
        return "binary" if all(split.binary for split in self.splits) else "grey"
