"""What a training run recorded: it prints as a table and plots itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["History"]


class History:
    """One row an epoch; all bounds and losses are mean nats per datum.

    Attributes:
        rows: for each epoch its ``epoch``, ``step``, ``loss`` (minus the bound that was followed, under its beta),
            ``reconstruction``, ``kl``, ``beta``, ``valid_bound`` (beta 1) and ``seconds`` since the start, as far
            as they are known

    Example:
        >>> history = History()
        >>> history.append({"epoch": 0, "loss": 12.5})
        >>> print(history)
        epoch    loss
            0  12.500
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def append(self, row: dict[str, Any]) -> None:
        """Add the row of one epoch."""
        self.rows.append(row)

    @property
    def epochs(self) -> int:
        """Number of epochs recorded."""
        return len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, key: str) -> list[Any]:
        """Return one column, None where a row lacks it."""
        if not any(key in row for row in self.rows):
            raise KeyError(f"{key!r}: expected one of {sorted({k for row in self.rows for k in row})}")
        return [row.get(key) for row in self.rows]

    def __str__(self) -> str:
        if not self.rows:
            return "History: no epoch yet"
        keys = list(dict.fromkeys(key for row in self.rows for key in row))
        table = [keys, *([show(row.get(key)) for key in keys] for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(keys))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in table)

    __repr__ = __str__

    def plot(self) -> Figure:
        """Draw bound, reconstruction and divergence against the epoch."""
        from pyro_vae.plots import training_curve

        return training_curve(self)


def show(value: Any) -> str:
    """Write one entry of the table."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
