"""Checks of data before the first training step."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae.distributions.by_column import Columns
from pyro_vae.distributions.missing import factorized, hide_missing
from pyro_vae.distributions.sphere import sphere

__all__ = [
    "batch_of",
    "check_context",
    "check_entries",
    "check_tensor",
    "check_values",
    "describe",
    "entry_support",
    "first",
    "invalid_parameters",
]

#: Most numbers of a row that an error shows.
SHOWN = 6

#: What to do about NaN where entries may be missing, and where they may not.
MISSING = "Where NaN marks missing entries, pass missing=True to the program"
NO_MISSING = "Fill in missing entries or remove their rows, or use a VAE with missing=True"


@contextmanager
def invalid_parameters(program: nn.Module) -> Iterator[None]:
    """Raise torch's error about the parameters of a distribution with the cause: NaN in weights, or a network."""
    try:
        yield
    except ValueError as error:
        if not re.match("Expected .* to satisfy the constraint", str(error)):
            raise
        bad = [name for name, p in program.named_parameters() if not torch.isfinite(p).all()]
        if bad:
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            raise ValueError(
                f"program: expected finite parameters, got NaN or infinity in {', '.join(bad[:3])}{more}. Load "
                "earlier weights, or train again with a lower learning rate of the optimizer or with clip_norm"
            ) from error
        text = str(error).partition(", but")[0]
        raise ValueError(
            f"program: a part returns a distribution with invalid parameters: {text}. Check the outputs of its "
            "network on x, and the units of x"
        ) from error


def check_entries(
    x: Tensor, fn: TorchDistributionMixin, likelihood: object, dtype: torch.dtype, *, missing: bool | None = None
) -> None:
    """Raise unless ``x`` is a batch of finite entries in the support of p(x given z).

    Args:
        x: the data
        fn: p(x given z), of batch shape ``(1,)``
        likelihood: the part that made it
        dtype: dtype of the program
        missing: whether entries may be missing (NaN); None if the program has no such option
    """
    if missing and not factorized(fn):
        raise ValueError(
            f"missing: expected a likelihood with independent entries, got {type(likelihood).__name__}. Use another "
            "one, such as Normal, or missing=False"
        )
    advice = NO_MISSING if missing is None or not factorized(fn) else MISSING
    check_tensor("x", x, fn.event_shape, dtype, missing=bool(missing), advice=advice)
    check_values("x", hide_missing(fn, x)[1] if missing else x, fn.support, likelihood)


def check_tensor(
    name: str,
    x: Tensor,
    shape: Sequence[int],
    dtype: torch.dtype,
    *,
    missing: bool = False,
    advice: str = NO_MISSING,
) -> None:
    """Raise unless ``x`` is a nonempty batch of finite entries (or NaN if ``missing``) with this shape per row.

    ``advice`` says what to do about NaN.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dtype != dtype:
        pixels = " / 255 for pixels 0..255" if name == "x" and x.dtype == torch.uint8 else ""
        raise ValueError(
            f"{name}: expected dtype {dtype} (that of the program's parameters), got {x.dtype}. Convert it with "
            f"`{name}.to({dtype})`{pixels}"
        )
    if x.dim() == 0 or tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"{name}: expected shape {batch_of(shape)} with one example per row, got {tuple(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one example, got an empty array of shape {tuple(x.shape)}")
    # the extremes of data with NaN are NaN: one pass over good data, which may be large
    if torch.isfinite(torch.stack(x.aminmax())).all():
        return
    for wrong, what, hint in ((torch.isnan, "NaN", advice), (torch.isinf, "infinite", "")):
        bad = wrong(x)
        if bad.any() and not (missing and wrong is torch.isnan):
            raise ValueError(
                f"{name}: expected finite values, but {name}[{first(bad)}] is {what} ({int(bad.sum()):,} of "
                f"{x.numel():,} values are). {hint}".rstrip(". ")
            )


def batch_of(shape: Sequence[int]) -> str:
    """Return the shape of a batch of examples in words."""
    return f"({', '.join(['n', *map(str, shape)])}{'' if shape else ','})"


def check_values(
    name: str,
    x: Tensor,
    support: constraints.Constraint,
    likelihood: object,
    *,
    mask: Tensor | bool | None = None,
    start: int = 0,
) -> None:
    """Raise if ``x`` is outside the support of ``likelihood``, with the hint of that likelihood.

    Args:
        name: name of the data in the message
        x: the data, with one example per row
        support: the support of the likelihood
        likelihood: the part or distribution, whose class is named
        mask: which rows are observed; all if None
        start: number of the first row of ``x``
    """
    support = entry_support(support)
    if support is constraints.boolean and torch.equal(x * x, x):
        return  # six times as fast as two comparisons
    bad = ~support.check(x)
    if mask is not None:
        seen = torch.as_tensor(mask, device=x.device)
        bad = bad & seen.reshape(*seen.shape, *[1] * max(0, bad.dim() - seen.dim()))
    if bad.any():
        value = x[tuple(bad.nonzero()[0].tolist())]
        some = value.flatten()[:SHOWN].tolist()
        shown = ", ".join([f"{v:.6g}" for v in some] + ["..."] * (value.numel() > SHOWN))
        shown = shown if value.dim() == 0 else f"[{shown}]"
        while isinstance(likelihood, dist.MaskedDistribution):
            likelihood = likelihood.base_dist
        at = support.of(int(bad.nonzero()[0, -1])) if isinstance(support, Columns) else support
        owner, hint = type(likelihood).__name__, getattr(likelihood, "hint", "")
        raise ValueError(
            f"{name}: {name}[{first(bad, start)}] is {shown}, outside the support of the likelihood {owner}, "
            f"{describe(at)} ({int(bad.sum()):,} of {bad.numel():,} are outside). {hint}".rstrip()
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
        check_tensor(name, c, tuple(c.shape[1:]), dtype, advice="A context cannot be missing: fill it in")
        if c.dim() < 2 or len(c) != n:
            raise ValueError(
                f"{name}: expected shape ({n}, {width}), one row per example (labels as one-hot floats), got "
                f"{tuple(c.shape)}"
            )
    if context and sum(c.shape[-1] for c in context) != width:
        raise ValueError(f"context: expected {width} numbers per example, got {[tuple(c.shape) for c in context]}")


def first(bad: Tensor, start: int = 0) -> str:
    """Return the first index where ``bad`` is true, as written in brackets; its first row has number ``start``."""
    row, *rest = bad.nonzero()[0].tolist() or [0]
    return ", ".join(map(str, [row + start, *rest]))


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
