"""Several tensors in one flat tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Layout"]

#: Numbers, so that every part starts at a boundary of the widest vector registers (64 bytes of float32).
ALIGN = 16


class Layout:
    """The layout of several tensors in one flat tensor.

    Args:
        parts: the tensors, of one dtype and device
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.shapes = [part.shape for part in parts]
        self.sizes = [part.numel() for part in parts]
        self.widths = [-(-size // ALIGN) * ALIGN for size in self.sizes] if len(parts) > 1 else self.sizes
        self.starts = [sum(self.widths[:i]) for i in range(len(parts))]

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return the parts of a flat tensor as views in their shapes."""
        places = zip(self.starts, self.sizes, self.shapes, strict=True)
        return [flat[start : start + size].view(shape) for start, size, shape in places]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return a flat tensor of the parts with zeros between them; a single part is not copied."""
        if len(parts) == 1:
            return parts[0].reshape(-1)
        rows = []
        for part, size, width in zip(parts, self.sizes, self.widths, strict=True):
            rows.append(part.reshape(-1))
            if width > size:
                rows.append(part.new_zeros(width - size))
        return torch.cat(rows)
