"""Checks of data before the first training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.sphere import sphere

__all__ = ["check_context", "check_tensor", "check_values", "describe", "entry_support", "first"]


def check_tensor(name: str, x: Tensor, shape: Sequence[int], dtype: torch.dtype, *, missing: bool = False) -> None:
    """Raise unless ``x`` is a nonempty batch of finite entries (or NaN if ``missing``) with this shape per row."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dtype != dtype:
        raise ValueError(
            f"{name}: expected dtype {dtype} (that of the program's parameters), got {x.dtype}; convert it with "
            f"`{name}.to({dtype})` (and divide pixels 0..255 by 255)"
        )
    expected = f"(n, {', '.join(map(str, shape))})" if shape else "(n,)"
    if x.dim() == 0 or tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"{name}: expected shape {expected} with one example per row, got {tuple(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one example, got an empty array of shape {tuple(x.shape)}")
    # the extremes of data with NaN are NaN: one pass over good data, which may be large
    if torch.isfinite(torch.stack(x.aminmax())).all():
        return
    for wrong, what in ((torch.isnan, "NaN"), (torch.isinf, "infinite")):
        bad = wrong(x)
        if bad.any() and not (missing and wrong is torch.isnan):
            hint = ". Where NaN marks missing entries, pass missing=True" if wrong is torch.isnan else ""
            raise ValueError(
                f"{name}: expected finite values, but {name}[{first(bad)}] is {what} ({int(bad.sum()):,} of "
                f"{x.numel():,} values are){hint}"
            )


def check_values(name: str, x: Tensor, support: constraints.Constraint, likelihood: object) -> None:
    """Raise if ``x`` is outside the support of ``likelihood``, with the hint of that likelihood."""
    support = entry_support(support)
    if support is constraints.boolean and torch.equal(x * x, x):
        return  # six times as fast as two comparisons
    bad = ~support.check(x)
    if bad.any():
        index = first(bad)
        value = x[tuple(bad.nonzero()[0].tolist())]
        shown = f"{value.item():.6g}" if value.dim() == 0 else f"{value.tolist()}"
        owner, hint = type(likelihood).__name__, getattr(likelihood, "hint", "")
        raise ValueError(
            f"{name}: {name}[{index}] is {shown}, outside the support of the likelihood {owner}, "
            f"{describe(support)} ({int(bad.sum()):,} of {bad.numel():,} are outside). {hint}".rstrip()
        )


def check_context(context: Sequence[Tensor], width: int, n: int, dtype: torch.dtype) -> None:
    """Raise unless the context has ``n`` rows of ``width`` numbers; a width of 0 means no context."""
    if width and not context:
        raise ValueError(
            f"context: expected {width} numbers per example (labels as one-hot floats, say), got none; pass the data "
            f"as a tuple (x, context) with a context of shape (n, {width})"
        )
    if context and not width:
        raise ValueError(
            f"context: expected none, as no part of this program takes a context, but the data have "
            f"{1 + len(context)} columns; pass x alone, or build the parts with context=WIDTH for a conditional VAE"
        )
    for i, c in enumerate(context):
        name = "context" if len(context) == 1 else f"context[{i}]"
        check_tensor(name, c, tuple(c.shape[1:]), dtype)
        if c.dim() < 2 or len(c) != n:
            raise ValueError(
                f"{name}: expected shape ({n}, {width}), one row per example (labels as one-hot floats), got "
                f"{tuple(c.shape)}"
            )
    if context and sum(c.shape[-1] for c in context) != width:
        raise ValueError(f"context: expected {width} numbers per example, got {[tuple(c.shape) for c in context]}")


def first(bad: Tensor) -> str:
    """Return the first index where ``bad`` is true, as written in brackets."""
    return ", ".join(str(i) for i in bad.nonzero()[0].tolist())


def entry_support(support: Any) -> Any:
    """Return the constraint on one entry if the entries are independent."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def describe(support: constraints.Constraint) -> str:
    """Describe a constraint in words."""
    words = {
        constraints.boolean: "0 or 1",
        constraints.unit_interval: "values in [0, 1]",
        constraints.real: "real numbers",
        constraints.positive: "positive numbers",
        constraints.nonnegative_integer: "counts 0, 1, 2, ...",
        constraints.simplex: "proportions that sum to 1",
        constraints.one_hot: "one-hot vectors",
        sphere: "unit vectors",
    }
    return words.get(support, str(support))
