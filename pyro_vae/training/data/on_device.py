"""Data that lie on the device as a whole, so that a step can take its rows from them by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

__all__ = ["OnDevice"]


class OnDevice:
    """What a step reads, as a function of tensors: a recorded step then takes its rows and draws its bits itself.

    Args:
        columns: x and context, a row a datum
        transforms: what draws each anew at each look, such as bits from grey levels; None for none
    """

    def __init__(self, columns: Sequence[Tensor], transforms: Sequence[Callable[[Tensor], Tensor] | None]) -> None:
        self.columns, self.transforms = list(columns), transforms

    def read(self, rows: Tensor, columns: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the batch ``(x, *context)`` of these rows; ``columns`` stand for those of this object."""
        return tuple(
            found if transform is None else transform(found)
            for found, transform in zip((c.index_select(0, rows) for c in columns), self.transforms, strict=True)
        )
