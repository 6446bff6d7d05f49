"""The input gate: what is wrong with a batch, said before the first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

__all__ = ["check_context", "check_supports", "check_tensor", "check_values"]


def check_tensor(name: str, x: Tensor, shape: Sequence[int], dtype: torch.dtype, *, missing: bool = False) -> None:
    """Refuse ``x`` unless it is a nonempty batch of finite entries (or NaN if ``missing``) of this shape."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dtype != dtype:
        raise ValueError(
            f"{name}: expected dtype {dtype} (that of the program's parameters), got {x.dtype}; convert it, for "
            f"instance `{name}.to({dtype})` (pixels 0..255 are usually divided by 255 as well)"
        )
    expected = f"(n, {', '.join(map(str, shape))})" if shape else "(n,)"
    if x.dim() == 0 or tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"{name}: expected shape {expected} with one datum a row, got {tuple(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one datum, got an empty array of shape {tuple(x.shape)}")
    # NaN survives the search for the extremes: one pass over data that are fine, which may be large
    if torch.isfinite(torch.stack(x.aminmax())).all():
        return
    for wrong, what in ((torch.isnan, "NaN"), (torch.isinf, "infinite")):
        bad = wrong(x)
        if bad.any() and not (missing and wrong is torch.isnan):
            holes = "; where NaN marks entries that were not observed, say so by missing=True"
            raise ValueError(
                f"{name}: expected finite values, but {name}[{first(bad)}] is {what} ({int(bad.sum()):,} of "
                f"{x.numel():,} values are){holes if wrong is torch.isnan else ''}"
            )


def check_values(name: str, x: Tensor, support: constraints.Constraint, likelihood: object) -> None:
    """Refuse ``x`` where it leaves the support of ``likelihood``, and pass on what that says to do instead."""
    support = base(support)
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


def check_supports(q: Distribution, p: Distribution, posterior: str, prior: str) -> None:
    """Refuse a posterior that draws where the prior has no density: their divergence does not exist."""
    here, there = base(q.support), base(p.support)
    # constraints without parameters are one object each, the others are told apart by their class
    if here is not there and type(here) is not type(there):
        raise ValueError(
            f"posterior {posterior} draws z from {describe(here)}, prior {prior} has its density on "
            f"{describe(there)}: one has no density where the other lives. Use two of the same kind, such as "
            "MeanFieldNormal with StandardNormal"
        )


def check_context(context: Sequence[Tensor], width: int, n: int, dtype: torch.dtype) -> None:
    """Refuse a context that is missing where parts need it, or does not fit the batch."""
    if width and not context:
        raise ValueError(
            f"context: this program needs {width} numbers of context (labels, say) beside each datum and got none; "
            f"give the data as a tuple (x, context) with context of shape (n, {width}), labels as one-hot floats"
        )
    if context and not width:
        raise ValueError(
            f"context: no part of this program takes a context, but the data have {1 + len(context)} columns; "
            "pass x alone, or build the parts with context=WIDTH for a conditional VAE"
        )
    for i, c in enumerate(context):
        name = "context" if len(context) == 1 else f"context[{i}]"
        check_tensor(name, c, tuple(c.shape[1:]), dtype)
        if c.dim() < 2 or len(c) != n:
            raise ValueError(
                f"{name}: expected shape ({n}, {width}), a row a datum (labels as one-hot floats), got "
                f"{tuple(c.shape)}"
            )
    if context and sum(c.shape[-1] for c in context) != width:
        raise ValueError(f"context: expected {width} numbers a datum, got {[tuple(c.shape) for c in context]}")


def first(bad: Tensor) -> str:
    """Return the first index where ``bad`` is true, as it would be written in brackets."""
    return ", ".join(str(i) for i in bad.nonzero()[0].tolist())


def base(support: constraints.Constraint) -> constraints.Constraint:
    """Return the constraint on one entry, where the entries are independent."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def describe(support: constraints.Constraint) -> str:
    """Say a constraint in words."""
    words = {
        constraints.boolean: "0 or 1",
        constraints.unit_interval: "values in [0, 1]",
        constraints.real: "real numbers",
        constraints.positive: "positive numbers",
        constraints.nonnegative_integer: "counts 0, 1, 2, ...",
        constraints.simplex: "shares that sum to 1",
        constraints.one_hot: "one-hot vectors",
    }
    return words.get(support, str(support))
