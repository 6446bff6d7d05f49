"""Errors about the engine of ``fit``, torch and its compiler: they name the argument to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyro_vae._util.memory import enough_memory

__all__ = ["check_engine", "named_errors"]


@contextmanager
def named_errors() -> Iterator[None]:
    """Raise errors of a step that come from the size of its batch as errors about ``batch_size``.

    Raises:
        ValueError: a BatchNorm got a single row.
        torch.OutOfMemoryError: the step does not fit into memory.
    """
    hint = "Lower batch_size or num_particles of the estimator, or set its particles_per_pass"
    try:
        with enough_memory("batch_size", hint):
            yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "batch_size: expected at least 2 rows per step for a network with BatchNorm, got 1. Raise batch_size (or "
            "that of the DataLoader), pass more data, or use GroupNorm or LayerNorm"
        ) from error


def check_engine(compile: Any, precision: Any) -> None:
    """Raise if an option of the step is of another type, such as a name."""
    if not (compile is None or isinstance(compile, bool) or callable(compile)):
        raise TypeError(
            f"compile: expected True, False or a compiler such as pyro_vae.training.eager_graph, got {compile!r}"
        )
    if not (precision is None or hasattr(precision, "__enter__")):
        raise TypeError(
            "precision: expected a context manager such as pyro_vae.training.Autocast(torch.bfloat16), got "
            f"{precision!r}"
        )
