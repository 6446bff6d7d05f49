"""Tables as examples: labels apart, and rows and columns without values left out and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pyro_vae._util.validation import nearest
from pyro_vae.data import files
from pyro_vae.data.covariates import encode_covariates, entries
from pyro_vae.data.examples import Examples
from pyro_vae.data.readers import Content, Options
from pyro_vae.data.rows import encode_labels
from pyro_vae.data.tables import Column, Table
from pyro_vae.data.tables.frames import columns_of, some
from pyro_vae.data.tables.values import blank, objects

__all__ = ["INDEX", "labelled", "numbers_of", "of_table"]

#: Names of the column with the row numbers in files that pandas wrote.
INDEX = ("", "Unnamed: 0", "__index_level_0__")


def of_table(name: str, content: Content, options: Options) -> Examples:
    """Return columns as examples; errors name the source."""
    table, labels, notes = content.columns, content.labels, list(content.notes)
    label = options.label
    out = {str(n) for n in options.leave_out} - {str(label)}
    try:
        parts = {part.name: part.values for part in columns_of(table, out)}
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if label is not None:
        if str(label) not in parts:
            raise ValueError(
                f"label: expected a column of {name} ({some([*parts])}), got {label}{nearest(str(label), parts)}"
            )
        labels = parts.pop(str(label))
        labels = files.typed(labels) if content.text else labels  # "1" in a frame is text, which the user chose
    known = {column.name for column in options.columns or ()} | {str(n) for n in options.types or ()}
    context, covariates = None, ()
    if options.covariates:
        context, covariates = encode_covariates(name, table, options.covariates)
        parts = {n: values for n, values in parts.items() if n not in {c.name for c in covariates}}
        notes.append(f"covariates: {', '.join(entries(covariates))}")
    used = {n: values for n, values in parts.items() if n not in out}
    index = None if options.keep_index else index_of(used)
    if index is not None and index not in known:
        notes.append(f"left out: column {index!r}, which has the row numbers of pandas (keep_index keeps it)")
        used.pop(index)
    empty = [n for n, values in used.items() if n not in known and blank(values).all()]
    if empty and len(empty) < len(used) and not options.keep_empty:
        notes.append(f"left out: {counted(empty, 'column')} without any value: {some(empty)}")
        used = {n: values for n, values in used.items() if n not in set(empty)}
    own = None
    gone = np.all([blank(values) for values in used.values()], 0) if used else np.zeros(0, bool)
    if gone.any() and not gone.all() and not options.keep_empty:
        rows = np.nonzero(gone)[0]
        which = ", ".join(map(str, rows[:5].tolist())) + (", ..." if len(rows) > 5 else "")
        notes.append(f"left out: {counted(rows, 'row')} without any value: {which} (counted from 0)")
        table, labels = taken(table, ~gone), None if labels is None else labels[~gone]
        own = torch.from_numpy(~gone).nonzero().squeeze(1)
        context = None if context is None else context[own]
    drop = {
        *out,
        *(parts.keys() - used.keys()),
        *(c.name for c in covariates),
        *(() if label is None else (str(label),)),
    }
    try:
        # errors and types are those of the whole table, in which rows have their own numbers
        whole = Table(content.columns, options.columns, types=options.types, leave_out=drop)
        found = whole if table is content.columns else Table(table, whole.columns, leave_out=drop)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    y, classes = labelled(name, labels, options)
    more = {"classes": classes, "table": found, "context": context, "covariates": covariates, "rows": own}
    return Examples(found.x, y, kind="table", notes=tuple(notes), name=name, **more)


def labelled(name: str, labels: Any, options: Options) -> tuple[Any, tuple[Any, ...]]:
    """Return class numbers and classes, or None and nothing for data without labels."""
    if labels is None:
        return None, ()
    labels = labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels
    array = np.asarray(labels)
    if array.dtype.kind in "US" and not isinstance(labels, np.ndarray):
        array = objects(labels)  # numpy makes text of all labels if some are text
    y, classes = encode_labels(name, array, None if options.classes is None else list(options.classes))
    return y, tuple(classes)


def index_of(parts: Mapping[str, np.ndarray]) -> str | None:
    """Return the name of the column with the row numbers of pandas, None if there is none."""
    for name in INDEX:
        if name in parts and len(parts) > 1:
            values = files.typed(parts[name])
            whole = values.dtype.kind in "iu" or (values.dtype == object and all(type(v) is int for v in values))
            if whole and len(set(values.tolist())) == len(values):
                return name
    return None


def counted(things: Sequence[Any], what: str) -> str:
    """Return a number and a noun."""
    return f"{len(things):,} {what}{'' if len(things) == 1 else 's'}"


def taken(table: Any, mask: np.ndarray) -> Any:
    """Return the rows of a table where the mask is true."""
    if hasattr(table, "iloc"):
        return table[mask]
    return {name: [v for v, kept in zip(values, mask, strict=True) if kept] for name, values in table.items()}


def numbers_of(name: str, content: Content, columns: Sequence[Column]) -> torch.Tensor | np.ndarray:
    """Return a table as numbers: in the codes of ``columns``, or as they are if all its columns are numbers."""
    if columns:
        return Table(content.columns, columns).x
    if hasattr(content.columns, "iloc"):
        found = content.columns.to_numpy()
    else:
        parts = [files.typed(part.values) for part in columns_of(content.columns)]
        found = np.stack(parts, 1) if all(p.dtype.kind in "fiub" for p in parts) else np.zeros(0, object)
    if found.dtype.kind not in "fiub":
        raise ValueError(
            f"{name}: expected a table with numbers in all columns, got columns of other types. Pass "
            f"pyro_vae.data.read({name}), to a program whose likelihood is Heterogeneous"
        )
    return found
