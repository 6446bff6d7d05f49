"""What the encoders see of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae.programs.checks import check_tensor

__all__ = ["Inputs"]


class Inputs(nn.Module):
    """The columns of a batch: the first one as the input of each network, the others as its context.

    A missing entry (NaN) of x is left to the network. Those of another column that has some in the example batch are
    0, and the mask of observed entries is a part of the context, too.

    Args:
        batch: the example batch
    """

    def __init__(self, batch: Sequence[Tensor]) -> None:
        super().__init__()
        self.shapes = [tuple(column.shape[1:]) for column in batch]
        self.dtypes = [column.dtype for column in batch]
        self.missing = [bool(torch.isnan(column).any()) for column in batch]
        self.dtype = batch[0].dtype if batch[0].is_floating_point() else torch.get_default_dtype()

    @property
    def width(self) -> int:
        """The width of the context."""
        columns = list(zip(self.shapes, self.missing, strict=True))[1:]
        return sum(math.prod(shape) * (1 + missing) for shape, missing in columns)

    def forward(self, dims: int, x: Tensor, *context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return x and the context, as numbers, with ``dims`` dimensions of size 1 after the rows."""
        dtype, ones = (x.dtype if x.is_floating_point() else self.dtype), [1] * dims
        columns = []
        for column, missing in zip(context, self.missing[1:], strict=True):
            flat = column.reshape(len(column), *ones, -1)
            if missing:
                observed = ~torch.isnan(flat)
                columns.append(observed.to(dtype))
                flat = torch.where(observed, flat, 0.0)
            columns.append(flat.to(dtype))
        return x.to(dtype).reshape(len(x), *ones, *self.shapes[0]), columns

    def check(self, dtype: torch.dtype, takes_missing: bool, *batch: Tensor) -> None:
        """Raise if the columns of a batch are not like those of the example batch.

        Args:
            dtype: type of floating-point columns
            takes_missing: whether all networks take missing entries of x
            batch: the columns
        """
        if len(batch) != len(self.shapes):
            raise ValueError(
                f"context: expected {len(self.shapes) - 1} columns in addition to x, as in the example arguments of "
                f"amortize, got {len(batch) - 1}"
            )
        for i, (column, shape, known) in enumerate(zip(batch, self.shapes, self.dtypes, strict=True)):
            name, missing = ("x", takes_missing) if i == 0 else (f"context[{i - 1}]", self.missing[i])
            advice = TAKES_MISSING if i == 0 else "Pass an example batch with NaN to amortize"
            expected = dtype if known.is_floating_point else known
            check_tensor(name, column, shape, expected, missing=missing, advice=advice)
            if len(column) != len(batch[0]):
                raise ValueError(f"{name}: expected {len(batch[0])} rows, as in x, got {len(column)}")


#: What to do about NaN in x.
TAKES_MISSING = (
    "Where NaN marks missing entries, build the encoders with a network that takes them, such as "
    "net=pyro_vae.nets.ZeroImputed, and mask them in the model (poutine.mask)"
)
