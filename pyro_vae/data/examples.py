"""What :func:`pyro_vae.data.read` returns: examples, and what was read and chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.dataset import Levels, Split
from pyro_vae.data.tables import Column, Table

__all__ = ["AXES", "Examples"]

#: Names of the axes of an example by their letters.
AXES = {"h": "height", "w": "width", "c": "channels", "t": "steps"}


@dataclass(frozen=True, eq=False, repr=False)
class Examples(Split):
    """Examples of any source, which ``fit``, the tasks, the evaluators and the command take.

    ``print(examples)`` shows what was read and chosen.

    Attributes:
        x: one example per row: a tensor, or rows that are read by batch. Integers stay integers until a batch is on
            its device
        y: class numbers of shape ``(n,)``, -1 for a missing label; or None
        transform: what makes a batch of ``x`` the numbers that a program sees, or None
        kind: ``"image"``, ``"table"``, ``"counts"``, ``"sequence"``, ``"array"``, or ``"stream"`` for data of torch
        layout: axes of one image: ``"hw"`` (height, width) or ``"chw"`` (channels, height, width); of a sequence
            ``"tc"`` (steps, channels); otherwise empty
        classes: the labels in the order of the class numbers
        context: covariates of shape ``(n, width)``, which programs get as context; or None
        lengths, inputs: numbers of steps of sequences, of shape ``(n,)``, and inputs of each step, of shape
            ``(n, steps, width)``, which programs get in this order; or None
        channels: type and unit of each channel of sequences, as columns
        covariates: the columns of the context
        rows: numbers of the rows of the source that are used, of shape ``(n,)``; None for all
        table: the columns of a table with their types and units; or None
        notes: what was chosen and left out, one sentence each
        name: the file, or the name of the argument
    """

    kind: str = "array"
    layout: str = ""
    classes: tuple[Any, ...] = ()
    context: Tensor | None = None
    lengths: Tensor | None = None
    inputs: Tensor | None = None
    channels: Sequence[Column] = ()
    covariates: tuple[Column, ...] = ()
    rows: Tensor | None = None
    table: Table | None = None
    notes: tuple[str, ...] = ()
    name: str = "source"

    def __getitem__(self, part: slice | Tensor) -> Split:
        """Return some of the examples, as a split without the table; of sequences with lengths and inputs."""
        if self.lengths is not None:
            parts = {name: getattr(self, name) for name in ("x", "y", "lengths", "inputs")}
            return replace(
                self, notes=(), **{name: None if column is None else column[part] for name, column in parts.items()}
            )
        if self.context is not None:
            raise TypeError("index: expected examples without context, got some with. Select x and context yourself")
        return Split(self.x, self.y, self.transform)[part]

    def __repr__(self) -> str:
        return f"Examples({self.summary})"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of a table or the channels of sequences; empty for other data."""
        return tuple(self.channels) if self.table is None else self.table.columns

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of one example; None for a stream, which is not read."""
        return tuple(self.x.shape[1:]) if hasattr(self.x, "shape") else None

    @property
    def values(self) -> str:
        """What the values are, which decides on the likelihood that the command chooses.

        ``"mixed"`` (a table), ``"sparse counts"`` (of cells, documents or the like), ``"counts"`` (integers of at
        least 0), ``"binary"``, ``"grey"`` (in [0, 1]) or ``"real"``.
        """
        if self.kind in ("table", "counts"):
            return {"table": "mixed", "counts": "sparse counts"}[self.kind]
        whole = isinstance(self.transform, Levels) and self.transform.largest == 1
        found = "binary"
        for rows in self.chunks():
            seen = rows[~torch.isnan(rows)]
            if found == "binary" and not ((seen == 0) | (seen == 1)).all():
                found = "grey"
            if len(seen) and (seen.min() < 0 or (seen.max() > 1 and not whole)):
                return "real"
        return "counts" if whole and found == "grey" else found

    @property
    def summary(self) -> str:
        """Number, kind, shape and labels in one line."""
        if self.kind == "stream":
            return f"{self.name}: {type(self.x).__name__}, read batch by batch"
        axes = ", ".join(f"{AXES[a]} {n}" for a, n in zip(self.layout, self.shape, strict=self.layout != ""))
        what = axes or ("column" if self.table else "shape") + (
            f"s {len(self.columns)}" if self.table else f" {self.shape}"
        )
        kinds = {"image": "images", "table": "rows of a table", "counts": "rows of counts", "array": "rows of numbers"}
        kinds["sequence"] = "sequences"
        parts = [f"{self.name}: {len(self):,} {kinds[self.kind]}", what, f"stored as {self.stored}"]
        parts += [f"{len(self.classes)} classes: {', '.join(map(str, self.classes[:6]))}"] if self.classes else []
        parts += [] if self.context is None else [f"{self.context.shape[1]} covariates"]
        return "; ".join(parts)

    @property
    def stored(self) -> str:
        """The type in which the examples are stored, without its library."""
        return str(getattr(self.x, "dtype", "rows")).removeprefix("torch.")

    def __str__(self) -> str:
        return "\n".join([self.summary, *self.notes, *([str(self.table)] if self.table else [])])
