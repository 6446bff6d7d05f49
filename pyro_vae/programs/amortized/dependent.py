"""Errors about models whose sites, plates or supports differ between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro_vae.programs.amortized.supports import fixed_support, same_support
from pyro_vae.programs.checks import describe, entry_support

__all__ = ["check_alike"]


def check_alike(runs: Sequence[dict[str, Any]], rows: tuple[int, int] | None = None) -> None:
    """Raise if the runs of a model do not have the same sites, plates and supports.

    Args:
        runs: the messages of each run by name of the site
        rows: the numbers of rows of two runs, None where all have the same data

    Raises:
        ValueError: it names the site or the plate.
    """
    first = runs[0]
    why = "on its latents" if rows is None else f"on the number of rows ({rows[0]} and {rows[1]})"
    for run in runs[1:]:
        if alone := sorted(first.keys() ^ run.keys()):
            hint = "in each run" if rows is None else "for any number of rows: use a vectorized plate"
            raise ValueError(
                f"model: expected the same sites {hint}, but whether {alone[0]!r} occurs depends {why} (stochastic "
                "support), so that no guide can be built from its sites"
            )
        for name, message in first.items():
            check_plates(name, message, run[name], why, rows)
            if not message["is_observed"]:
                check_support(name, message["fn"], run[name]["fn"], why)


def check_plates(name: str, a: Any, b: Any, why: str, rows: tuple[int, int] | None) -> None:
    """Raise if a site is in other plates, or in plates of other sizes, in the second run."""
    frames, others = ({f.name: f for f in m["cond_indep_stack"]} for m in (a, b))
    if frames.keys() != others.keys():
        raise ValueError(f"model: expected fixed plates, but those of site {name!r} depend {why}")
    for plate, frame in frames.items():
        sizes = frame.size, others[plate].size
        if sizes[0] != sizes[1] and sizes != rows:
            raise ValueError(
                f"model: expected plates of fixed sizes, but the size of {plate!r} at site {name!r} depends {why}, "
                f"{sizes[0]} and {sizes[1]}. Use a plate of the largest size, and poutine.mask"
            )
    if not a["is_observed"] and a["fn"].event_shape != b["fn"].event_shape:
        raise ValueError(
            f"model: expected fixed shapes, but the event shape of site {name!r} depends {why}, "
            f"{tuple(a['fn'].event_shape)} and {tuple(b['fn'].event_shape)}"
        )


def check_support(name: str, a: Any, b: Any, why: str) -> None:
    """Raise if the support of a site is another one in the second run."""
    if not same_support(fixed_support(a), fixed_support(b)):
        raise ValueError(
            f"model: expected a fixed support, but that of site {name!r} differs between rows or depends {why}: "
            f"{describe(entry_support(a.support))}. Sample a latent with a fixed support, such as a number in the "
            "unit interval, and compute the value from it"
        )
