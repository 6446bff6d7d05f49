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

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.flattened import FlattenedConstraint
from pyro_vae.distributions.sphere import sphere
from pyro_vae.programs.checks import check_values, describe, entry_support
from pyro_vae.programs.primitives import announcements_off

__all__ = ["check_parts"]


def check_parts(program: nn.Module, x: Tensor, *context: Tensor) -> None:
    """Raise if the parts of a program do not fit together, by a dry run of model and guide on one row.

    At each latent site, the posterior must have the event shape of the prior and sample inside its support. Each
    observation must lie in the support of its likelihood.

    Args:
        program: a Program
        x: one row of data
        context: its context

    Raises:
        ValueError: it names the site, both parts, and a combination that works.
    """
    errors: list[RuntimeError] = []
    # a mismatch may break one function before its sites can be compared; the other order then finds it
    for order in (("model", "guide"), ("guide", "model")):
        try:
            with announcements_off(), DryRun(program) as run:
                for function in order:
                    run.function = function
                    getattr(program, function)(x, *context)
            return
        except RuntimeError as error:
            errors.append(error)
    raise errors[0]


class DryRun(Messenger):
    """Compare the distributions of each site in the model and in the guide.

    A distribution was made by the last :class:`Conditional` that was called before its sample statement.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        # a part that is also inside another part (such as the posterior of a VampPrior) has its outermost name
        modules = sorted(program.named_modules(remove_duplicate=False), key=lambda item: -item[0].count("."))
        self.names = {module: name for name, module in modules if isinstance(module, Conditional)}
        self.called: list[Conditional] = []
        self.sites: dict[str, dict[str, tuple[str, Distribution]]] = defaultdict(dict)
        self.function = "model"

    def __enter__(self) -> DryRun:
        self.hooks = [m.register_forward_hook(lambda m, *_: self.called.append(m)) for m in self.names]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        super().__exit__(*error)

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name, fn = msg["name"], msg["fn"]
        part = self.called[-1] if self.called else None
        self.called.clear()
        family = type(getattr(fn, "base_dist", fn)).__name__
        label = f"{self.names[part]} {type(part).__name__}" if part else f"{self.function} {family}"
        if msg["is_observed"]:
            if fn._validate_args and msg["mask"] is None and support_of(fn) is not None:
                check_values(name, msg["value"], fn.support, part or fn)
            return
        self.sites[name][self.function] = label, fn
        if len(self.sites[name]) == 2:
            check_pair(name, *self.sites[name]["guide"], *self.sites[name]["model"])


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
