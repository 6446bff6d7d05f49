"""Tables with columns of mixed types as tensors."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.arrays import as_tensor
from pyro_vae._util.validation import check_unique, nearest
from pyro_vae.data.tables.column import Column
from pyro_vae.data.tables.frames import Part, alike, columns_of, entries_of, frame_of, is_frame, known, restored, some
from pyro_vae.data.tables.infer import infer
from pyro_vae.data.tables.labels import Labels
from pyro_vae.data.tables.values import blank, same

__all__ = ["Table", "schema"]

#: A type of a column: a class, its name, or a column with its units.
Kind = type[Column] | Column | str


class Table:
    """A table as one float tensor that can be decoded to its columns and types again.

    Train on it with :class:`pyro_vae.likelihoods.Heterogeneous` as likelihood, and :class:`Features` as encoder.

    Args:
        data: a pandas data frame, a dict of columns, a structured array, or an array ``(rows, columns)``; masked
            arrays and nullable types of pandas have missing values
        columns: objects of ``pyro_vae.data.tables``, one per column, in the order of ``x``; inferred from the data
            if None. Pass those of the training set for a test set, so that both have the same codes
        types: types that are not inferred, by name of the column: a class such as ``Count``, its name, or a column;
            ``"Ordinal(low<mid<high)"`` gives the order of text
        leave_out: names of columns that are not used
        invalid_as_missing: whether values that ``columns`` cannot have, such as a new category or a 0 in a Positive
            column, become missing instead of an error

    Attributes:
        x: float32 of shape ``(rows, columns)``: numbers, dates as numbers with a unit, labels as codes 0, 1, 2, ...,
            and NaN where a value is missing
        columns: one object per column
        invalid: with ``invalid_as_missing``, the mask of the values that became missing, of the shape of ``x``;
            otherwise None

    Raises:
        ValueError: the columns do not fit the data, a type cannot be inferred, or a column cannot have one of its
            values.
        TypeError: ``types`` is not a dict.

    Example:
        >>> table = Table({"age": [38.5, None, 55.2], "colour": ["red", "green", "red"]})
        >>> table.x.shape, table.names
        (torch.Size([3, 2]), ('age', 'colour'))
        >>> table.decode(torch.tensor([[40.0, 1.0]]))
        {'age': array([40.0], dtype=object), 'colour': array(['red'], dtype='<U5')}
    """

    def __init__(
        self,
        data: Any,
        columns: Sequence[Column] | None = None,
        *,
        types: Mapping[Any, Kind] | None = None,
        leave_out: Collection[Any] = (),
        invalid_as_missing: bool = False,
    ) -> None:
        parts = {part.name: part for part in parts_of(data, leave_out)}
        self.columns = inferred(parts, types or {}) if columns is None else tuple(columns)
        if columns is not None and types:
            raise ValueError(f"types: expected none with columns, got {', '.join(map(str, types))}")
        check_unique("columns", self.names)
        check_names(list(parts), list(self.names))
        self._parts = [parts[name] for name in self.names]
        both = list(zip(self.columns, self._parts, strict=True))
        self.invalid: Tensor | None = None
        if invalid_as_missing:
            codes, wrong = zip(*(column.possible(part.values) for column, part in both), strict=True)
            self.invalid = torch.from_numpy(np.stack(wrong, -1))
        else:
            codes = [column.codes(part.values) for column, part in both]
        self.x = torch.from_numpy(np.stack(codes, -1).astype(np.float32))
        if self.x.isinf().any():
            row, j = self.x.isinf().nonzero()[0].tolist()
            raise ValueError(
                f"column {self.names[j]!r}: expected numbers that a float32 holds, got {codes[j][row]} in row {row}"
            )
        self._frame, self._index = (type(data), data.index) if is_frame(data) else (None, None)
        if self._frame is not None:
            places = {str(key): i for i, key in enumerate(data.columns)}
            self._header = data.columns[[places[name] for name in self.names]]
        # where a float32 does not give the value back, the value itself is kept
        rows = self.x.numpy().T
        self._exact = [bool(same(p.values, self._read(j, rows[j])).all()) for j, p in enumerate(self._parts)]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    def like(self, data: Any) -> Table:
        """Return another table with these columns; any more columns are left out."""
        own = set(self.names)
        more = [str(key) for key, _ in entries_of(data) if str(key) not in own]
        return Table(data, self.columns, leave_out=more, invalid_as_missing=self.invalid is not None)

    def decode(self, x: Tensor) -> Any:
        """Return rows ``(n, columns)`` as a table: a data frame if the data were one, otherwise a dict of arrays.

        Rows that agree with those of the table in every observed entry have its exact values and its index.
        """
        x = as_tensor(x).detach().cpu()
        if x.dim() != 2 or x.shape[1] != len(self.columns):
            raise ValueError(f"x: expected shape (n, {len(self.columns)}), got {tuple(x.shape)}")
        if x.isinf().any():
            row, j = x.isinf().nonzero()[0].tolist()
            raise ValueError(f"x: expected finite numbers or NaN, got {x[row, j]} in row {row} of {self.names[j]!r}")
        own = x.shape == self.x.shape and bool((torch.isnan(self.x) | (x.float() == self.x)).all())
        values = [self._decode(j, codes, own=own) for j, codes in enumerate(x.numpy().T)]
        columns = [restored(part, found) for part, found in zip(self._parts, values, strict=True)]
        if self._frame is None:
            return dict(zip((part.key for part in self._parts), columns, strict=True))
        frame = frame_of(self._frame, self._header, columns)
        return frame.set_axis(self._index) if own else frame

    def _decode(self, j: int, codes: np.ndarray, *, own: bool) -> np.ndarray:
        """Return the values of a column, with those of the table where a code is one of its own."""
        source, found = self._parts[j].values, self._read(j, codes)
        if self._exact[j]:
            return found
        if own:
            return np.where(blank(source), found, source)
        known, first = np.unique(self.x[:, j].numpy(), return_index=True)
        at = np.searchsorted(known, codes.astype(np.float32)).clip(max=len(known) - 1)
        return np.where(known[at] == codes, source[first[at]], found)

    def _read(self, j: int, codes: np.ndarray) -> np.ndarray:
        """Return the values of a column, as far as its type knows them."""
        return alike(self._parts[j].values, self.columns[j].decode(codes), text=self._parts[j].text)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{c.name} {type(c).__name__}" for c in self.columns)
        return f"Table({len(self.x)} rows; {kinds})"

    def __str__(self) -> str:
        """Return one line per column: name, type, values and number of missing values."""
        holes = torch.isnan(self.x).sum(0).tolist()
        rows = [("column", "type", "values", "missing")]
        rows += [(c.name, type(c).__name__, str(c), f"{n:,}") for c, n in zip(self.columns, holes, strict=True)]
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def schema(table: Any, types: Mapping[Any, Kind] | None = None) -> tuple[Column, ...]:
    """Infer the type of each column of a table with :func:`infer`.

    Args:
        table: a data frame, a dict of columns, or an array ``(rows, columns)``
        types: types that are not inferred, as in :class:`Table`

    Raises:
        ValueError: ``table`` is none of these, or a type cannot be inferred.

    Example:
        >>> [type(column).__name__ for column in schema({"height": [1.7, 1.9], "grade": [1, 2]})]
        ['Positive', 'Binary']
    """
    return inferred({part.name: part for part in columns_of(table)}, types or {})


def parts_of(data: Any, leave_out: Collection[Any]) -> list[Part]:
    """Return the columns of a table, without some of them."""
    names = [leave_out] if isinstance(leave_out, str) else [*map(str, leave_out)]
    check_unique("leave_out", names)
    return columns_of(data, set(names))


def inferred(parts: Mapping[str, Part], types: Mapping[Any, Kind]) -> tuple[Column, ...]:
    """Return the columns of a table, of these types or of inferred ones."""
    if not isinstance(types, Mapping):
        raise TypeError(f"types: expected a dict of types by name of the column, got a {type(types).__name__}")
    kinds = {str(name): kind for name, kind in types.items()}
    known("types", kinds, list(parts))
    return tuple(column_of(part, kinds.get(name)) for name, part in parts.items())


def column_of(part: Part, kind: Kind | None) -> Column:
    """Return a column of a type, or of an inferred one."""
    if isinstance(kind, Column):
        return kind
    shelf, order = dict(concrete(Column)), ""
    if isinstance(kind, str):
        name, opened, order = kind.partition("(")
        kind = shelf.get(name, kind) if not opened or order.endswith(")") else kind
    if kind is not None and not (isinstance(kind, type) and issubclass(kind, Column)):
        among, hint = ", ".join(sorted(shelf)), nearest(str(kind), shelf)
        raise ValueError(f"types: expected one of {among} for {part.name!r}, got {kind!r}{hint}")
    if order and kind is not None and issubclass(kind, Labels):
        return kind(part.name, tuple(value.strip() for value in order[:-1].split("<")))
    return infer(part.name, part.values, part.categories, ordered=part.ordered, kind=kind)


def concrete(base: type[Column]) -> Iterator[tuple[str, type[Column]]]:
    """Yield the concrete column types by name."""
    for cls in base.__subclasses__():
        if not inspect.isabstract(cls):
            yield cls.__name__, cls
        yield from concrete(cls)


def check_names(own: list[str], given: list[str]) -> None:
    """Raise unless the data have the given columns."""
    if sorted(own) != sorted(given):
        known, wanted = set(own), set(given)
        differ = {"missing": [n for n in given if n not in known], "unexpected": [n for n in own if n not in wanted]}
        listed = "; ".join(f"{what}: {some(found)}" for what, found in differ.items() if found)
        raise ValueError(f"columns: expected {some(given)}, got {some(own)} ({listed})")
