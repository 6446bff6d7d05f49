"""What the encoders see of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae.programs.amortized.inspection import Frame
from pyro_vae.programs.checks import batch_of, check_tensor

__all__ = ["Inputs", "place"]


class Inputs(nn.Module):
    """The columns of a batch: the first one as the input of each network, the others as its context.

    A missing entry (NaN) of x is left to the network. Those of a column in the context are 0; where the example batch
    has some, the mask of observed entries is a part of the context, too.

    The latents of a plate inside an example have the entries of that plate as input, and the whole row as context.

    Args:
        batch: the example batch
        plate: the plate of the data
    """

    def __init__(self, batch: Sequence[Tensor], plate: Frame) -> None:
        super().__init__()
        self.dim = plate.dim
        self.shapes = [tuple(column.shape[1:]) for column in batch]
        self.dtypes = [column.dtype for column in batch]
        self.missing = [bool(torch.isnan(column).any()) for column in batch]
        self.dtype = batch[0].dtype if batch[0].is_floating_point() else torch.get_default_dtype()

    def shape(self, inner: Frame | None = None) -> tuple[int, ...]:
        """Return the shape of x, or that of one entry of an inner plate.

        Raises:
            ValueError: x has no dimension for the inner plate.
        """
        if inner is None:
            return self.shapes[0]
        if self.shapes[0][:1] != (inner.size,):
            raise ValueError(
                f"model: expected x of shape (n, {inner.size}, ...), with the entries of plate {inner.name!r} in its "
                f"second dimension, as that plate has latents of its own, got {batch_of(self.shapes[0])}. Move that "
                "dimension to the front of an example"
            )
        return self.shapes[0][1:]

    def width(self, inner: Frame | None = None) -> int:
        """Return the width of the context of a latent."""
        sizes = [math.prod(shape) * (1 + missing) for shape, missing in zip(self.shapes, self.missing, strict=True)]
        return sum(sizes[1:]) if inner is None else sum(sizes)

    def forward(self, inner: Frame | None, *batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return x, or its entries in an inner plate, and the context, with the dimensions of the plates."""
        dtype = batch[0].dtype if batch[0].is_floating_point() else self.dtype
        size = max(-self.dim, 0 if inner is None else -inner.dim)
        dims = [self.dim] if inner is None else [self.dim, inner.dim]
        context = []
        for i, (column, missing) in enumerate(zip(batch, self.missing, strict=True)):
            if i == 0 and inner is None:
                continue
            flat = place(column.reshape(len(column), -1), [self.dim], size)
            observed = ~torch.isnan(flat)
            context += [observed.to(dtype)] if missing else []
            context.append(torch.where(observed, flat, 0).to(dtype))
        return place(batch[0].to(dtype), dims, size), context

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
            if column.shape[0] != batch[0].shape[0]:
                raise ValueError(f"{name}: expected {len(batch[0])} rows, as in x, got {len(column)}")


def place(x: Tensor, dims: Sequence[int], size: int) -> Tensor:
    """Move the first dimensions of a tensor to those of plates.

    Args:
        x: a tensor
        dims: the dimension of the plate for each of the first dimensions of x
        size: number of dimensions of plates; those that are not in ``dims`` have size 1
    """
    order = sorted(range(len(dims)), key=lambda i: dims[i])
    lead = [1] * size
    for i in order:
        lead[dims[i]] = x.shape[i]
    return x.permute(*order, *range(len(dims), x.dim())).reshape([*lead, *x.shape[len(dims) :]])


#: What to do about NaN in x.
TAKES_MISSING = (
    "Where NaN marks missing entries, build the encoders with a network that takes them, such as "
    "net=pyro_vae.nets.ZeroImputed, and mask them in the model (poutine.mask)"
)
