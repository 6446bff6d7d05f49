"""The check that the parts of a program fit together, before the first training step."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from pyro import distributions as dist
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from pyro_vae.distributions.flattened import FlattenedConstraint
from pyro_vae.distributions.poincare_ball import ball
from pyro_vae.distributions.sphere import sphere
from pyro_vae.programs.calls import Calls
from pyro_vae.programs.checks import check_values, describe, entry_support, first
from pyro_vae.programs.primitives import announcements_off

__all__ = ["check_parts"]


#: Rows of the first dry run: a number that is rarely the size of another axis, so that none is taken for the rows.
ROWS = 7

#: Rows of each further dry run.
MORE_ROWS = 128


def check_parts(program: nn.Module, x: Tensor, *context: Tensor) -> None:
    """Raise if the parts of a program do not fit together, by a dry run of guide and model.

    At each latent site, the posterior must have the event shape of the prior and sample inside its support. Each
    observation must lie in the support of its likelihood, and each site have one log-density per row. All rows are
    run if no ``check_data`` was written for this model; otherwise a few rows, as ``check_data`` checks the others.

    Args:
        program: a Program
        x: rows of data
        context: their context

    Raises:
        ValueError: it names the site, both parts, and a combination that works.
    """
    columns, checked = (x, *context), vouches(type(program))
    starts = [0] if checked else [0, *range(ROWS, len(x), MORE_ROWS)]
    for start, end in zip(starts, [*starts[1:], ROWS if checked else len(x)], strict=True):
        batch = [column[start:end] for column in columns]
        try:
            with Calls(program) as calls:
                dry_run(program, calls, start, *batch)
        except ValueError as error:
            missing = [torch.isnan(column) for column in batch]
            if checked or not any(nan.any() for nan in missing):
                raise
            name, nan = next((f"context[{i - 1}]" if i else "x", nan) for i, nan in enumerate(missing) if nan.any())
            raise ValueError(
                f"{name}: {name}[{first(nan, start)}] is NaN, and the program fails on it: {error}"
            ) from error


def vouches(cls: type) -> bool:
    """Return whether ``check_data`` is defined by the class that defines ``model``, or by a subclass of it."""
    order = [next(i for i, base in enumerate(cls.__mro__) if name in vars(base)) for name in ("check_data", "model")]
    return order[0] <= order[1]


def dry_run(program: Any, calls: Calls, start: int, *batch: Tensor) -> None:
    """Run guide and model on rows that begin with row number ``start``."""
    errors: list[Exception] = []
    # a mismatch may break one function before its sites can be compared; the other order then finds it
    for order in (("guide", "model"), ("model", "guide")):
        try:
            with announcements_off(), DryRun(calls, start) as run:
                for function in order:
                    run.function = function
                    getattr(program, function)(*batch)
            return
        except (RuntimeError, ValueError) as error:
            if run.comparing:
                raise
            errors.append(error)
    raise errors[0]


class DryRun(Messenger):
    """Compare the distributions of each site in the guide and in the model, and score each site.

    The model is replayed with the latents of the guide. A distribution was made by the part that was called last
    before its sample statement.
    """

    def __init__(self, calls: Calls, start: int) -> None:
        super().__init__()
        self.calls, self.start = calls, start
        self.sites: dict[str, dict[str, tuple[str, Distribution]]] = defaultdict(dict)
        self.values: dict[str, Any] = {}
        self.function, self.comparing = "guide", False

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name, fn = msg["name"], msg["fn"]
        part = self.calls.last[0] if self.calls.last else None
        self.calls.last = None
        label = self.calls.label(part) if part else f"{self.function} {family(fn)}"
        if msg["is_observed"]:
            self.score(msg, label, part or getattr(fn, "base_dist", fn))
            return
        if self.function not in self.sites[name]:
            self.sites[name][self.function] = label, fn
            if len(self.sites[name]) == 2:
                self.comparing = True
                check_pair(name, *self.sites[name]["guide"], *self.sites[name]["model"])
                self.comparing = False
        if name in self.values:
            msg["done"], msg["value"] = True, self.values[name]

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            self.values[msg["name"]] = msg["value"]
            self.score(msg, f"{self.function} {family(msg['fn'])}")

    def score(self, msg: Any, label: str, owner: object = None) -> None:
        """Compute the log-density of a site; raise if it has another shape than its plates or its value is invalid."""
        name, fn, value = msg["name"], msg["fn"], msg["value"]
        try:
            log_p = fn.log_prob(value)
        except NotImplementedError:
            return  # a simulator without a density
        except ValueError as error:
            if owner is None:
                return  # a sample on the edge of its own support
            if support_of(fn) is not None:
                check_values(name, value, fn.support, owner, mask=msg["mask"], start=self.start)
            if msg["mask"] is None:
                raise ValueError(f"{name}: {error} ({label})") from error
            return
        frames = {frame.dim: frame.size for frame in msg["cond_indep_stack"] if frame.vectorized}
        expected = [frames.get(dim, 1) for dim in range(min(frames, default=0), 0)]
        found = list(log_p.shape)
        while len(found) > len(expected) and found[0] == 1:
            found.pop(0)
        if expected and found != expected:
            raise ValueError(
                f"{name}: expected log-densities of shape {tuple(expected)}, one for each row in the plate, got "
                f"{tuple(log_p.shape)} ({label}). Give values and distribution the same batch shape, and declare the "
                "dimensions of one example by `.to_event`"
            )
        bad = torch.isnan(log_p) & (True if msg["mask"] is None else msg["mask"])
        if owner is not None and bad.any():
            raise ValueError(f"{name}: the log-density of {name}[{first(bad, self.start)}] is NaN ({label})")


def family(fn: Distribution) -> str:
    """Return the name of a distribution."""
    return type(getattr(fn, "base_dist", fn)).__name__


def check_pair(name: str, posterior: str, q: Distribution, prior: str, p: Distribution) -> None:
    """Raise unless q(z) has the event shape of p(z) and samples where p(z) has its density."""
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"{name}: expected the latents of {posterior} and {prior} to have the same shape, got "
            f"{tuple(q.event_shape)} and {tuple(p.event_shape)}. Build both with the same `latent`"
        )
    inner, outer = support_of(q), support_of(p)
    if inner is not None and outer is not None and not contains(outer, inner):
        working = {
            constraints.simplex: "Dirichlet with Dirichlet",
            constraints.one_hot: "OneHotCategorical with OneHotCategorical",
            constraints.boolean: "Bernoulli with Bernoulli",
            sphere: "PowerSpherical with HypersphericalUniform",
            ball: "WrappedNormal with WrappedNormal",
        }.get(outer, "MeanFieldNormal with StandardNormal")
        raise ValueError(
            f"{name}: expected the same support, but {posterior} samples from {describe(inner)} and {prior} has its "
            f"density on {describe(outer)}. Use a posterior and a prior that fit, such as {working}"
        )


def support_of(fn: Distribution) -> constraints.Constraint | None:
    """Return the constraint on one entry, None for a point estimate and where the distribution does not define it."""
    if isinstance(getattr(fn, "base_dist", fn), dist.Delta):
        return None
    try:
        return entry_support(fn.support)
    except NotImplementedError:
        return None


def contains(outer: constraints.Constraint, inner: constraints.Constraint) -> bool:
    """Return whether two supports are of the same kind, and the inner one lies in the outer one."""
    if isinstance(outer, FlattenedConstraint) and isinstance(inner, FlattenedConstraint):
        return outer.shape == inner.shape and contains(entry_support(outer.base), entry_support(inner.base))
    a, b = bounds(outer), bounds(inner)
    if a is None or b is None:
        return type(outer) is type(inner)
    (discrete, low, high), (also_discrete, inner_low, inner_high) = a, b
    if discrete != also_discrete or (inner_low < low).any() or (inner_high > high).any():
        return False
    return all(bool(x.isfinite().all()) == bool(y.isfinite().all()) for x, y in ((low, inner_low), (high, inner_high)))


def bounds(support: constraints.Constraint) -> tuple[bool, Tensor, Tensor] | None:
    """Return whether a set of numbers is discrete, and its ends (open or closed); None for any other set."""
    low, high = getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)
    if support is constraints.boolean:
        low, high = 0.0, 1.0
    elif support is not constraints.real and not (hasattr(support, "lower_bound") or hasattr(support, "upper_bound")):
        return None
    return support.is_discrete, torch.as_tensor(low), torch.as_tensor(high)
