"""Sequences as examples: padded to one length, with their lengths and inputs."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pyro_vae._util.arrays import fill_masked
from pyro_vae.data.arrays import as_rows
from pyro_vae.data.examples import Examples
from pyro_vae.data.lazy import LazyRows
from pyro_vae.data.readers import Content, Options
from pyro_vae.data.tidy import labelled
from pyro_vae.data.units import channel_columns

__all__ = ["check_lengths", "check_observed", "of_sequences"]


def of_sequences(name: str, content: Content, options: Options) -> Examples:
    """Return sequences as examples, with NaN after the end of each."""
    for option, given, known in (("layout", options.layout, "tc"), ("levels", options.levels, None)):
        if given not in (None, known):
            raise ValueError(
                f"{option}: expected {known or 'none'} for sequences ({name}), got {given!r}. Leave it out"
            )
    x, lengths = padded(name, content.rows)
    if content.lengths is not None:
        lengths = torch.as_tensor(np.asarray(content.lengths))
        check_lengths(lengths, x, name)
        lengths = lengths.long()
    inside = torch.arange(x.shape[1]) < lengths.unsqueeze(-1)
    x = torch.where(inside.unsqueeze(-1), x, torch.nan)
    check_observed(x, name)
    blank = torch.isnan(x).all(0).all(0)
    if blank.any():
        raise ValueError(
            f"{name}: expected a number in each channel, got none in channel {int(blank.nonzero()[0])} (counted from "
            "0). Leave it out"
        )
    inputs = None if content.inputs is None else inputs_of(content.inputs, lengths)
    channels, table = channel_columns(x[inside])
    y, classes = labelled(name, content.labels, options)
    notes = (
        f"lengths: {int(lengths.min()):,} to {int(lengths.max()):,} steps; after the end of a sequence x is NaN",
        *content.notes,
        *([] if inputs is None else [f"inputs: {inputs.shape[2]} for each of up to {inputs.shape[1]:,} steps"]),
        table,
    )
    more: dict[str, Any] = {
        "lengths": lengths,
        "inputs": inputs,
        "channels": channels,
        "classes": classes,
        "notes": notes,
    }
    return Examples(x, y, kind="sequence", layout="tc", name=name, **more)


def padded(name: str, rows: Any) -> tuple[Tensor, Tensor]:
    """Return sequences as an array ``(n, steps, channels)`` with NaN after the end of each, and their lengths."""
    if not isinstance(rows, list):
        x = numbers(name, rows)
        if x.dim() != 3 or 0 in x.shape:
            hint = ". Pass one sequence as a batch of shape (1, steps, channels)" if x.dim() == 2 else ""
            raise ValueError(f"{name}: expected sequences of shape (n, steps, channels), got {tuple(x.shape)}{hint}")
        return x, torch.full((len(x),), x.shape[1])
    steps = [numbers(name, row) for row in rows]
    for i, row in enumerate(steps):
        where = f"got shape {tuple(row.shape)} (sequence {i}, counted from 0)"
        if row.dim() != 2:
            raise ValueError(f"{name}: expected sequences of shape (steps, channels), {where}. Reshape them")
        if not len(row):
            raise ValueError(f"{name}: expected at least one step in each sequence, {where}. Remove empty sequences")
        if row.shape[1] != steps[0].shape[1]:
            raise ValueError(
                f"{name}: expected {steps[0].shape[1]} channels in each sequence, as in the first, {where}. Add the "
                "others as NaN"
            )
    dtype = reduce(torch.promote_types, {row.dtype for row in steps})
    x = pad_sequence([row.to(dtype) for row in steps], batch_first=True, padding_value=torch.nan)
    return x, torch.tensor([len(row) for row in steps])


def numbers(name: str, rows: Any) -> Tensor:
    """Return an array as floating-point numbers in memory."""
    x = as_rows(name, np.asarray(rows) if isinstance(rows, np.memmap) else fill_masked(rows)[:])
    x = x[:] if isinstance(x, LazyRows) else x
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def check_lengths(lengths: Tensor | None, x: Tensor, name: str = "x") -> None:
    """Raise unless there is an integer from 1 to the steps of x ``(n, steps, ...)`` for each sequence, or None."""
    if lengths is None:
        return
    if lengths.shape != x.shape[:1]:
        more = ". Pass inputs after the lengths: (x, lengths, inputs)" if lengths.dim() == 3 else ""
        raise ValueError(
            f"lengths: expected {len(x):,} integers, one per sequence of {name}, got shape "
            f"{tuple(lengths.shape)}{more}"
        )
    bad = ~((lengths >= 1) & (lengths <= x.shape[1]) & (lengths == lengths.long()))
    if bad.any():
        i = int(bad.nonzero()[0])
        raise ValueError(
            f"lengths: expected integers from 1 to {x.shape[1]:,}, the number of steps of {name}, but lengths[{i}] is "
            f"{lengths[i].item():g}. Remove empty sequences, and pad shorter ones to the longest"
        )


def check_observed(x: Tensor, name: str = "x") -> None:
    """Raise if all entries of a sequence are missing."""
    empty = torch.isnan(x).flatten(1).all(1)
    if empty.any():
        i = int(empty.nonzero()[0])
        raise ValueError(
            f"{name}: expected an observed entry in each sequence, but all of x[{i}] are missing "
            f"({int(empty.sum()):,} of {len(x):,} sequences are). Remove these sequences"
        )


def inputs_of(inputs: Any, lengths: Tensor) -> Tensor:
    """Return inputs ``(n, steps, width)``, or raise if a sequence has fewer than its steps."""
    found, steps = padded("inputs", inputs)
    short = [] if len(found) != len(lengths) else (steps < lengths).nonzero().flatten().tolist()
    if len(found) != len(lengths) or short:
        what = f"{int(steps[short[0]])} steps in sequence {short[0]}" if short else f"{len(found):,} sequences"
        raise ValueError(
            f"inputs: expected those of all steps of {len(lengths):,} sequences, got {what}. Add the rest"
        )
    return found
