"""Sampled gradients of an estimator and their statistics."""

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
from pyro_vae.programs.primitives import announcements_off
from pyro_vae.programs.program import Program
from pyro_vae.training.step import Collector, mean_scale
from pyro_vae.training.svi import SVI

__all__ = [
    "GradientSampler",
    "Gradients",
    "Moments",
    "guide_parameters",
    "own_bias",
    "sample_gradients",
    "sample_sites",
]


class Moments:
    """Mean and variance of vectors by running sums, so that memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, vector: Tensor) -> None:
        """Add one vector."""
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
    def square_error(self) -> float:
        """Expected squared distance of the mean from the expectation."""
        return float(self.variance.sum()) / max(self.count, 1)

    @property
    def norm(self) -> float:
        """Norm of the expectation, corrected for noise; 0 if the mean is within its noise."""
        square = float(self.mean.square().sum())
        return math.sqrt(square - self.square_error) if square > 2 * self.square_error else 0.0

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio, averaged over the entries that are not always zero."""
        mean, std = self.mean.abs(), self.variance.sqrt()
        alive = (mean > 0) | (std > 0)
        return float((mean / std)[alive].mean()) if alive.any() else math.nan

    def bias(self, reference: Moments | None) -> tuple[float, float, float]:
        """Return the relative bias against a reference, its error and the cosine, with norms corrected for noise."""
        if reference is None:
            return math.nan, math.nan, math.nan
        square_error = self.square_error + reference.square_error
        size, other = self.norm, reference.norm
        bias = math.sqrt(max(float((self.mean - reference.mean).square().sum()) - square_error, 0.0))
        product = float(self.mean @ reference.mean)
        cosine = max(-1.0, min(1.0, product / (size * other))) if size * other > 0 else math.nan
        return (bias / other, math.sqrt(square_error) / other, cosine) if other > 0 else (math.nan, math.nan, cosine)


class GradientSampler:
    """Samples objectives and gradients on one batch, with copies of a program and an estimator."""

    def __init__(self, program: Program, estimator: PyroELBO, batch: Sequence[Tensor]) -> None:
        self.program = copy.deepcopy(program)
        self.estimator: Any = copy.deepcopy(estimator)
        self.batch = tuple(batch)
        # with a learning rate of zero a complete step can be timed without changing the weights
        self.svi = SVI(self.program, self.estimator, partial(torch.optim.Adam, lr=0.0))
        self.svi.steps = getattr(estimator, "step", 0)  # a schedule of beta depends on the step
        self.named = {name: p for name, p in self.program.named_parameters() if p.requires_grad}

    def backward(self, seed: int) -> float:
        """Return the objective in mean nats per example, and leave the gradient of the loss in the parameters."""
        self.svi.optim.zero()
        with self.seeded(seed):
            return -float(self.svi.backward(self.batch)["loss"]) / self.batch[0].shape[0]

    def objective(self, seed: int) -> float:
        """Return the objective without its gradient."""
        with self.seeded(seed), torch.no_grad(), Collector() as collector:
            loss = self.estimator.loss(self.program.model, self.program.guide, *self.batch)
        loss = sum(loss) if isinstance(loss, tuple) else loss
        return -loss / float(mean_scale(collector.scales)) / self.batch[0].shape[0]

    def bound(self, seed: int) -> float:
        """Return the bound at beta 1 in mean nats per example, for an estimator of this library."""
        with self.seeded(seed), torch.no_grad():
            found = self.estimator.per_datum(self.program.model, self.program.guide, *self.batch)
        return float(found.mean())

    def step(self) -> None:
        """Take a complete training step with a learning rate of zero."""
        self.svi.optim.zero()
        with self.as_in_training():
            self.svi.backward(self.batch)
        self.svi.optim.torch.step()

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Run as in training, with a random seed."""
        with fork_rng(self.batch, seed), self.as_in_training():
            yield

    @contextmanager
    def as_in_training(self) -> Iterator[None]:
        """Run without validation, and without announcing parameters unless the estimator is one of Pyro."""
        silent = announcements_off() if isinstance(self.estimator, Estimator) else nullcontext()
        with pyro.validation_enabled(False), silent:
            yield

    def gradient(self, names: Sequence[str]) -> Tensor:
        """Return the gradient of the objective that :meth:`backward` left in these parameters, as one vector."""
        parameters = [self.named[n] for n in names]
        grads = [torch.zeros_like(p) if p.grad is None else -p.grad for p in parameters]
        return torch.cat([g.flatten() for g in grads]) if grads else torch.zeros(0)

    def slope(self, names: Sequence[str], direction: Tensor, seed: int) -> float:
        """Return the derivative of the objective along a unit vector: a central difference with the same seed."""
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
    """Samples of one estimator: its bounds at beta 1, and its gradients for the parameters of guide and model.

    Along the mean gradient, ``slopes`` are the slope of the objective and the component of the gradient, as two rows.
    """

    bound: Moments = field(default_factory=Moments)
    bounds: list[float] = field(default_factory=list)
    groups: dict[str, Moments] = field(default_factory=dict)
    slopes: dict[str, Tensor] = field(default_factory=dict)


def sample_gradients(
    sampler: GradientSampler,
    groups: dict[str, list[str]],
    *,
    num_samples: int,
    seed: int,
    smooth: bool,
    tick: Callable[[], Any],
) -> Gradients:
    """Sample values and gradients of an estimator, with respect to ``groups`` of named parameters.

    Slopes exist if the latents are reparameterized (``smooth``): the first half of the samples gives their directions.
    """
    found = Gradients(groups={key: Moments() for key in groups})
    slopes: dict[str, list[tuple[float, float]]] = {key: [] for key in groups}
    directions: dict[str, Tensor] = {}
    ours = isinstance(sampler.estimator, Estimator)
    for i in range(num_samples):
        own_seed = derive_seed(seed, i)
        value = sampler.backward(own_seed)
        vectors = {key: sampler.gradient(names) for key, names in groups.items()}
        for key, vector in vectors.items():
            found.groups[key].add(vector)
        found.bounds.append(sampler.bound(own_seed) if ours else value)
        found.bound.add(torch.tensor(found.bounds[-1], dtype=torch.float64))
        if i == num_samples // 2 - 1 and smooth and math.isfinite(value):
            means = {key: moments.mean.clone() for key, moments in found.groups.items()}
            directions = {key: mean / mean.norm() for key, mean in means.items() if mean.norm() > 0}
        if i >= num_samples - num_samples // 4:
            for key, u in directions.items():
                slopes[key].append((sampler.slope(groups[key], u, own_seed), float(vectors[key].double() @ u)))
        tick()
    found.slopes = {key: torch.tensor(rows, dtype=torch.float64).T for key, rows in slopes.items() if rows}
    return found


def own_bias(slopes: Tensor | None) -> tuple[float, float]:
    """Return the relative error of a gradient along its direction, and its standard error."""
    if slopes is None:
        return math.nan, math.nan
    objective, gradient = slopes
    size = float(gradient.mean())
    if size < 3 * float(gradient.std()) / math.sqrt(len(gradient)):
        return math.nan, math.nan
    apart = gradient - objective
    return float(apart.mean()) / size, float(apart.std()) / math.sqrt(len(apart)) / size


def guide_parameters(program: Program, batch: Sequence[Tensor]) -> list[str]:
    """Return the names of the parameters on which the samples or densities of the guide depend."""
    named = {name: p for name, p in program.named_parameters() if p.requires_grad}
    with fork_rng(batch), torch.enable_grad():
        sites = sample_sites(program, batch)
        terms = [t for s in sites.values() for t in (s["value"], s["fn"].log_prob(s["value"])) if t.requires_grad]
        if not terms:
            return []
        grads = torch.autograd.grad(sum(t.sum() for t in terms), list(named.values()), allow_unused=True)
    return [name for name, g in zip(named, grads, strict=True) if g is not None]


def sample_sites(program: Program, batch: Sequence[Tensor]) -> dict[str, Any]:
    """Return the sample sites of the guide."""
    nodes = poutine.trace(program.guide).get_trace(*batch).nodes
    return {name: site for name, site in nodes.items() if site["type"] == "sample" and not site_is_subsample(site)}
