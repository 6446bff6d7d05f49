"""The metrics that a training run recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["History"]


class History:
    """Metrics of a training run, one row per epoch; it prints as a table.

    ``history[-1]`` is the last epoch as a dict, ``history["loss"]`` a column as a list, ``len(history)`` the number of
    epochs. All bounds and losses are means in nats per example. A loss is minus a bound:

    * ``loss``: minus the training bound, at the beta of each step; lower is better,
    * ``valid_bound``: the validation bound, at beta 1; higher is better,
    * ``reconstruction`` and ``kl``: the terms of the training bound, ``reconstruction - beta * kl`` for the ELBO.

    Args:
        rows: metrics of each epoch: ``epoch`` (from 0), ``step`` (steps so far), ``seconds`` since the start, ``beta``
            at the end of the epoch, and the above as far as they are known

    Example:
        >>> history = History([{"epoch": 0, "loss": 12.5}])
        >>> print(history)
        epoch    loss
            0  12.500
        >>> history[-1]["loss"], history["loss"], len(history)
        (12.5, [12.5], 1)
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self.rows = list(rows)

    def append(self, row: dict[str, Any]) -> None:
        """Add the row of one epoch."""
        self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, key: str | int | slice) -> Any:
        """Return the row of an epoch, the rows of a slice, or a column (None in rows without it).

        Raises:
            IndexError: there is no such epoch.
            KeyError: no row has this column.
        """
        if not isinstance(key, str):
            return self.rows[key]
        if not any(key in row for row in self.rows):
            raise KeyError(f"{key!r}: expected one of {sorted({k for row in self.rows for k in row})}")
        return [row.get(key) for row in self.rows]

    def __str__(self) -> str:
        if not self.rows:
            return "History: no epoch yet"
        keys = list(dict.fromkeys(key for row in self.rows for key in row))
        table = [keys, *([to_text(row.get(key)) for key in keys] for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(keys))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in table)

    __repr__ = __str__

    def plot(self) -> Figure:
        """Plot the bound, the reconstruction and the divergence against the epoch."""
        from pyro_vae.plots import training_curve

        return training_curve(self)


def to_text(value: Any) -> str:
    """Return an entry of the table as text."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
