"""Counts of cells, documents or the like as examples: checked, and rows without any count left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.dataset import Levels
from pyro_vae.data.examples import Examples
from pyro_vae.data.lazy import LazyRows
from pyro_vae.data.readers import Content, Options
from pyro_vae.data.tidy import counted, labelled

__all__ = ["of_counts"]

#: Rows that are looked at together.
CHUNK = 256


def of_counts(name: str, content: Content, options: Options) -> Examples:
    """Return a matrix of counts as examples."""
    rows, notes = content.rows, list(content.notes)
    if len(rows.shape) != 2 or 0 in rows.shape:
        raise ValueError(f"{name}: expected a matrix with one example per row, got shape {tuple(rows.shape)}")
    rows = rows if isinstance(rows, LazyRows) else torch.from_numpy(np.ascontiguousarray(rows))
    totals, columns = totals_of(name, rows)
    never = int((columns == 0).sum())
    if never:
        notes.append(f"genes: {counted(range(never), 'column')} of {len(columns):,} without any count, kept")
    labels, context, own = content.labels, content.context, None
    empty = np.nonzero(totals == 0)[0]
    if len(empty) == len(totals):
        raise ValueError(f"{name}: expected counts, got {len(totals):,} rows of zeros")
    if len(empty) and not options.keep_empty:
        which = ", ".join(map(str, empty[:5].tolist())) + (", ..." if len(empty) > 5 else "")
        notes.append(f"left out: {counted(empty, 'row')} without any count: {which} (counted from 0)")
        own = torch.from_numpy(np.nonzero(totals)[0])
        rows, labels = rows[own], None if labels is None else np.asarray(labels)[own.numpy()]
        context = None if context is None else context[own]
    y, classes = labelled(name, labels, options)
    more = {
        "classes": classes,
        "context": context,
        "covariates": content.covariates,
        "rows": own,
        "notes": tuple(notes),
        "name": name,
    }
    return Examples(rows, y, Levels(), kind="counts", **more)


def totals_of(name: str, rows: LazyRows | Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of rows and columns, or raise if a value is no count."""
    totals, columns = [], np.zeros(rows.shape[1])
    for start in range(0, len(rows), CHUNK):
        some: Any = rows[start : start + CHUNK]
        chunk = (some[:] if isinstance(some, LazyRows) else some).double()
        wrong = ~(chunk >= 0) | (chunk != chunk.round())
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"{name}: expected counts 0, 1, 2, ..., got {float(chunk[row, column]):.4g} in row {start + row}, "
                f"column {column} (counted from 0). Pass raw counts (key names a layer), or real numbers as an array"
            )
        totals.append(chunk.sum(1).numpy())
        columns += chunk.sum(0).numpy()
    return np.concatenate(totals), columns
