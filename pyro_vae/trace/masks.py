"""Terms of a loss without the entries that a mask leaves out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["masked"]


def masked(mask: Any, x: Tensor) -> Tensor:
    """Set masked entries to zero.

    Args:
        mask: which entries count: a tensor, or a bool for all entries; all of them if None
        x: a tensor, such as a log-density
    """
    if mask is None or mask is True:
        return x
    if mask is False:
        return torch.zeros_like(x)
    # where, not a product: a masked entry may be NaN or -inf
    return torch.where(mask, x, x.new_zeros(()))
