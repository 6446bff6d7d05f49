"""Draws of the gradient that an estimator follows, and what they say of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO as PyroELBO
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vae._util.random_state import derive_seed, fork_rng
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import Program, announcements_off
from pyro_vae.training.svi import SVI

__all__ = ["Resumer", "Gradients", "Moments", "collect", "guide_parameters", "not_smooth"]


class Moments:
    """Mean and variance of vectors by running sums, so that memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, vector: Tensor) -> None:
        """Count one more vector."""
        vector = vector.double()
        if not self.count:
            self.mean, self.squares = torch.zeros_like(vector), torch.zeros_like(vector)
        self.count += 1
        apart = vector - self.mean
        self.mean.add_(apart, alpha=1 / self.count)
        self.squares.addcmul_(apart, vector - self.mean)

    @property
    def variance(self) -> Tensor:
        """Variance of each entry."""
        return self.squares / max(self.count - 1, 1)

    @property
    def noise(self) -> float:
        """Expected squared distance of the mean from the expectation."""
        return float(self.variance.sum()) / max(self.count, 1)


class Resumer:
    """A copy of a program under one estimator: what it follows on one batch, for noise of a given seed.

    Args:
        program: is copied, and left as it is
        estimator: is copied too
        batch: x and context
    """

    def __init__(self, program: Program, estimator: PyroELBO, batch: Sequence[Tensor]) -> None:
        self.program, self.estimator = copy.deepcopy(program), copy.deepcopy(estimator)
        self.batch = tuple(batch)
        # a learning rate of zero: a whole step can be timed, and the weights stay
        self.svi = SVI(self.program, self.estimator, partial(torch.optim.Adam, lr=0.0))
        self.svi.dry_run(self.batch)
        self.svi.steps = getattr(estimator, "step", 0)  # where a schedule of its beta stands
        self.named = {name: p for name, p in self.program.named_parameters() if p.requires_grad}

    def follow(self, seed: int) -> float:
        """Return the objective in mean nats per datum, and leave the gradient of the loss in the weights."""
        self.svi.optim.zero()
        with self.noise(seed):
            return -float(self.svi.backward(self.batch)["loss"]) / self.batch[0].shape[0]

    def objective(self, seed: int) -> float:
        """Return the objective without its gradient."""
        with self.noise(seed), torch.no_grad():
            loss = self.estimator.loss(self.program.model, self.program.guide, *self.batch)
        return -(sum(loss) if isinstance(loss, tuple) else loss) / self.svi._weights[self.batch[0].shape[0]]

    def bound(self, seed: int) -> float:
        """Return the bound at beta 1 in mean nats per datum, as an estimator of this library tells it."""
        with self.noise(seed), torch.no_grad():
            found = self.estimator.per_datum(self.program.model, self.program.guide, *self.batch)
        return float(found.mean())

    def step(self) -> None:
        """Take a whole training step, which moves no weight."""
        self.svi.optim.zero()
        with self.quiet():
            self.svi.backward(self.batch)
        self.svi.optim.torch.step()

    @contextmanager
    def noise(self, seed: int) -> Iterator[None]:
        """Run as the engine does, with noise of a seed."""
        with fork_rng(self.batch, seed), self.quiet():
            yield

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Run as the engine does: without validation, and unannounced where the estimator does not ask."""
        silent = announcements_off() if isinstance(self.estimator, Estimator) else nullcontext()
        with pyro.validation_enabled(False), silent:
            yield

    def gradient(self, names: Sequence[str]) -> Tensor:
        """Return the gradient of the objective left by :meth:`follow`, of these parameters as one vector."""
        grads = [self.named[n].grad for n in names]
        flat = [
            (torch.zeros_like(self.named[n]) if g is None else -g).flatten() for n, g in zip(names, grads, strict=True)
        ]
        return torch.cat(flat) if flat else torch.zeros(0)

    def slope(self, names: Sequence[str], direction: Tensor, seed: int) -> float:
        """Return the derivative of the objective along a unit vector, by a central difference with equal noise."""
        start = [self.named[n].detach().clone() for n in names]
        parts = direction.to(start[0]).split([p.numel() for p in start])
        step = torch.finfo(start[0].dtype).eps ** (1 / 3)
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for n, p, part in zip(names, start, parts, strict=True):
                    self.named[n].copy_(p + sign * step * part.view_as(p))
            values.append(self.objective(seed))
        with torch.no_grad():
            for n, p in zip(names, start, strict=True):
                self.named[n].copy_(p)
        return (values[0] - values[1]) / (2 * step)


@dataclass
class Gradients:
    """What was drawn of one estimator on one batch.

    Attributes:
        bound: of the bound at beta 1
        groups: for ``"guide"`` and ``"model"``, of the gradient of the objective
        slopes: for both, draws of the slope of the objective along the mean gradient (first row), and of the
            component of the gradient along it (second row), with equal noise
    """

    bound: Moments = field(default_factory=Moments)
    groups: dict[str, Moments] = field(default_factory=dict)
    slopes: dict[str, Tensor] = field(default_factory=dict)


def collect(
    follower: Resumer,
    groups: dict[str, list[str]],
    *,
    draws: int,
    seed: int,
    smooth: bool,
    tick: Callable[[], Any],
) -> Gradients:
    """Draw values and gradients of an estimator.

    Args:
        follower: the estimator on its batch
        groups: names of the parameters of guide and model
        draws: how many; the first half gives the directions of slopes, which the last quarter takes
        seed: of the noise
        smooth: whether the draws of the latents are differentiable by the parameters, so that there are slopes
        tick: called after each draw

    Returns:
        The sums.
    """
    found = Gradients(groups={key: Moments() for key in groups})
    slopes: dict[str, list[tuple[float, float]]] = {key: [] for key in groups}
    directions: dict[str, Tensor] = {}
    ours = isinstance(follower.estimator, Estimator)
    for i in range(draws):
        noise = derive_seed(seed, i)
        value = follower.follow(noise)
        vectors = {key: follower.gradient(names) for key, names in groups.items()}
        for key, vector in vectors.items():
            found.groups[key].add(vector)
        found.bound.add(torch.tensor(follower.bound(noise) if ours else value, dtype=torch.float64))
        if i == draws // 2 - 1:
            means = {key: moments.mean.clone() for key, moments in found.groups.items()}
            smooth = smooth and math.isfinite(value)
            directions = {key: mean / mean.norm() for key, mean in means.items() if smooth and mean.norm() > 0}
        if i >= draws - draws // 4:
            for key, u in directions.items():
                slopes[key].append((follower.slope(groups[key], u, noise), float(vectors[key].double() @ u)))
        tick()
    found.slopes = {key: torch.tensor(rows, dtype=torch.float64).T for key, rows in slopes.items() if rows}
    return found


def guide_parameters(program: Program, batch: Sequence[Tensor]) -> list[str]:
    """Return the names of the parameters on which the guide's draws or densities depend."""
    named = {name: p for name, p in program.named_parameters() if p.requires_grad}
    with fork_rng(batch), torch.enable_grad():
        trace = poutine.trace(program.guide).get_trace(*batch)
        sites = [s for s in trace.nodes.values() if s["type"] == "sample" and not site_is_subsample(s)]
        terms = [t for s in sites for t in (s["value"], s["fn"].log_prob(s["value"])) if t.requires_grad]
        if not terms:
            return []
        grads = torch.autograd.grad(sum(t.sum() for t in terms), list(named.values()), allow_unused=True)
    return [name for name, g in zip(named, grads, strict=True) if g is not None]


def not_smooth(program: Program, batch: Sequence[Tensor]) -> str:
    """Say which draw of the guide is not reparameterized; nothing where all are."""
    with fork_rng(batch), torch.no_grad():
        trace = poutine.trace(program.guide).get_trace(*batch)
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not site_is_subsample(site) and not site["fn"].has_rsample:
            return f"the guide draws {name!r} without a reparameterized sampler"
    return ""
