"""Many tensors in one: parameters and their moments laid side by side, so that one kernel updates all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Flat"]

#: Numbers, so that every part starts at a boundary of the widest vector registers (64 bytes of float32).
ALIGN = 16


class Flat:
    """The layout of tensors in one flat tensor.

    Args:
        parts: the tensors, of one dtype and device
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.shapes = [part.shape for part in parts]
        self.sizes = [part.numel() for part in parts]
        self.widths = [-(-size // ALIGN) * ALIGN for size in self.sizes] if len(parts) > 1 else self.sizes
        self.starts = [sum(self.widths[:i]) for i in range(len(parts))]

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return the views of a flat tensor, in their shapes."""
        places = zip(self.starts, self.sizes, self.shapes, strict=True)
        return [flat[start : start + size].view(shape) for start, size, shape in places]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return one flat tensor, zero between the parts; of a single part no copy is made."""
        if len(parts) == 1:
            return parts[0].reshape(-1)
        rows = []
        for part, size, width in zip(parts, self.sizes, self.widths, strict=True):
            rows.append(part.reshape(-1))
            if width > size:
                rows.append(part.new_zeros(width - size))
        return torch.cat(rows)
