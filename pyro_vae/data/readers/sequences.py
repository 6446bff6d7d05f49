"""Sequences of different lengths in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, unpack_sequence

from pyro_vae.data.readers.reader import Content, Options, Reader

__all__ = ["SEQUENCES", "is_packed", "is_ragged"]


def is_packed(source: Any) -> bool:
    """Whether an object is a PackedSequence, which is a tuple to Python."""
    return isinstance(source, PackedSequence)


def is_nested(source: Any) -> bool:
    """Whether an object is a nested tensor."""
    return isinstance(source, Tensor) and source.is_nested


def is_ragged(source: Any) -> bool:
    """Whether an object is a list of arrays or tensors of different shapes."""
    if not isinstance(source, list) or not all(isinstance(row, (np.ndarray, Tensor)) for row in source):
        return False
    return len({tuple(row.shape) for row in source}) > 1


def load(name: str, source: Any, options: Options) -> Content:
    """Return the sequences as a list."""
    rows = unpack_sequence(source) if is_packed(source) else source.unbind() if is_nested(source) else source
    return Content(rows=list(rows), sequences=True)


SEQUENCES = Reader(
    source="list of arrays or tensors `(steps, channels)` of different lengths, `PackedSequence` or nested tensor",
    becomes="sequences, padded with NaN to `(n, steps, channels)`, and their lengths; missing entries are NaN",
    takes=lambda source: is_packed(source) or is_nested(source) or is_ragged(source),
    load=load,
    options=("layout",),
)
