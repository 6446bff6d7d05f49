"""Importance sampling from the guide, and the tail of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.index import in_rows_of
from pyro_vae._util.validation import check_int
from pyro_vae._util.weights import check_weights
from pyro_vae.evaluation.cost import check_memory
from pyro_vae.evaluation.over import num_rows, over, passes, require_order
from pyro_vae.evaluation.result import PerExample, Result, by_example, number
from pyro_vae.programs.program import Program
from pyro_vae.trace import run

__all__ = ["HEAVY", "LogLikelihood", "importance_sampled", "log_weights", "pareto_k", "summarize"]

#: With a Pareto k above this, a mean of importance weights is unreliable for any practical number of particles.
HEAVY = 0.7

#: Up to this number of particles the weights of one example always fit into memory.
FEW = 10_000

#: With fewer samples the tail has fewer than five.
MIN_SAMPLES = 25

#: A regularization of k towards 0.5, with the weight of this number of tail samples.
PRIOR_SIZE, PRIOR_K = 10, 0.5

#: Below this share of the largest weight the spread of a tail is rounding error.
ROUNDING = 1e-10


@dataclass(frozen=True)
class LogLikelihood(PerExample, Result, plot="log_likelihoods"):
    r"""Importance-weighted log-likelihoods, in nats.

    Attributes:
        per_example: :math:`\log \frac1K \sum_k w_k` of each example, of shape ``(n,)``, on the CPU
        per_example_error: Monte Carlo standard error of each entry (delta method), of shape ``(n,)``
        weights: weights of the examples in the mean, of shape ``(n,)``; None for equal weights
        ess: effective sample size :math:`(\sum w)^2 / \sum w^2` of each example, of shape ``(n,)``
        pareto_k: tail shape of the weights of each example (:func:`pareto_k`), of shape ``(n,)``; NaN below 25
            particles
        num_particles: K
        particles: number of particles of each example, 0 where it was annealed, of shape ``(n,)``; None if all have K
    """

    ess: Tensor
    pareto_k: Tensor
    num_particles: int
    particles: Tensor | None = None

    @property
    def source(self) -> str:
        """The method."""
        if self.particles is None:
            return f"importance sampling, {self.num_particles:,} particles"
        text = f"importance sampling, {self.num_particles:,} to {int(self.particles.max()):,} particles"
        annealed = int((self.particles == 0).sum())
        return f"{text}, {annealed:,} examples annealed" if annealed else text

    @property
    def heavy(self) -> float:
        """Share of the examples with a Pareto k above 0.7, whose estimates are unreliable; NaN if k is unknown."""
        return math.nan if self.pareto_k.isnan().all() else float((self.pareto_k > HEAVY).double().mean())

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per example."""
        columns = {"log_likelihood": self.per_example, "std_error": self.per_example_error}
        more = {"weight": self.weights, "particles": self.particles}
        more = {name: column for name, column in more.items() if column is not None}
        return by_example(**columns, ess=self.ess, pareto_k=self.pareto_k, **more)

    def summary(self) -> list[dict[str, Any]]:
        """Return one row: the mean and how reliable it is."""
        return [
            {
                "examples": f"{len(self.per_example):,}",
                "particles": f"{self.num_particles:,}",
                "log-likelihood (nats per example)": number(self.mean, self.std_error, 5),
                "Monte Carlo error": number(self.monte_carlo_error),
                "ESS, median": number(float(self.ess.median())),
                "Pareto k, median": number(float(self.pareto_k.median()), digits=2),
                "k > 0.7": "-" if math.isnan(self.heavy) else f"{self.heavy:.1%}",
            }
        ]

    def __str__(self) -> str:
        tail = "" if math.isnan(self.heavy) else f"; Pareto k above {HEAVY} for {self.heavy:.1%} of the examples"
        return (
            f"{self.mean:.2f} nats per example (standard error {self.std_error:.2f} over {len(self.per_example):,} "
            f"examples, {self.monte_carlo_error:.3f} from {self.source}{tail})"
        )


def importance_sampled(
    program: Program, x: Any, num_particles: int, *, weights: Any = None, **options: Any
) -> LogLikelihood:
    """Return log-likelihoods by importance sampling, with the given options of :func:`over`."""
    num_particles = check_int("num_particles", num_particles)
    if weights is not None:
        require_order(x)
        weights = check_weights(in_rows_of(x, "weights", weights), num_rows(x))
    device = program.device
    if num_particles > FEW:
        check_memory(
            "num_particles", num_particles, lambda k: diagnose(torch.zeros(k, 1, device=device)), device, few=FEW
        )

    def weigh(*batch: Tensor) -> tuple[Tensor, ...]:
        return diagnose(log_weights(program, batch, num_particles))

    found, error, ess, tail = over(program, x, weigh, num_particles=num_particles, **options)
    if weights is not None:
        check_weights(weights, len(found))  # a stream does not know its number of rows in advance
    return LogLikelihood(found, error, ess, tail, num_particles, weights=weights)


def log_weights(program: Program, batch: tuple[Tensor, ...], num_particles: int) -> Tensor:
    """Return log p(x, z) - log q(z given x) at samples of the guide, of shape ``(num_particles, batch)``.

    The samples are drawn in passes that keep memory small.
    """
    found = []
    for k in passes(batch[0], num_particles):
        terms = run(program.model, program.guide, batch, {}, num_particles=k).split()[0]
        found.append(terms.log_w().expand(k, -1))
    return torch.cat(found)


def diagnose(log_w: Tensor) -> tuple[Tensor, ...]:
    """Return log-mean, its standard error, effective sample size and Pareto k, from ``(particles, batch)``."""
    log_w = log_w.double()
    tail = pareto_k(log_w) if len(log_w) >= MIN_SAMPLES else torch.full_like(log_w[0], math.nan)
    return *summarize(log_w), tail


def summarize(log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-mean, its standard error and the effective sample size, from ``(particles, batch)``."""
    k = log_w.shape[0]
    total = log_w.logsumexp(0)
    share = (log_w - total).exp()
    ess = 1 / share.square().sum(0)
    # variance of the mean of w over its square: (1/k) (sum of shares squared * k - 1) * k / (k - 1)
    error = ((1 / ess - 1 / k).clamp(min=0) * (k / max(k - 1, 1))).sqrt()
    return total - math.log(k), error if k > 1 else torch.full_like(total, math.nan), ess


def pareto_k(log_w: Tensor) -> Tensor:
    r"""Estimate the tail shape k of importance weights, which shows whether their mean is reliable.

    The excess of the largest :math:`M = \min(S / 5, 3 \sqrt S)` of S weights over the next one follows a generalized
    Pareto distribution,

    .. math:: P(w > u + y \mid w > u) \approx (1 + k y / \sigma)^{-1/k},

    with 1/k finite moments. Up to k = 0.7 an importance-weighted mean is reliable for a practical S; above 1 the
    weights have no mean. k is the nearly Bayesian estimate of Zhang and Stephens, shrunk weakly towards 0.5.

    References:
        Pareto smoothed importance sampling (Vehtari et al., 2024), https://arxiv.org/abs/1507.02646;
        A new and efficient estimation method for the generalized Pareto distribution (Zhang and Stephens, 2009),
        https://doi.org/10.1198/tech.2009.08017

    Args:
        log_w: log-weights, of shape ``(samples, *batch)``

    Returns:
        k, of shape ``(*batch)``; minus infinity where the largest weights are all equal.

    Raises:
        ValueError: there are fewer than 25 samples.

    Example:
        >>> import torch
        >>> pareto_k(torch.randn(1000, 3)).shape
        torch.Size([3])
    """
    n = log_w.shape[0]
    if n < MIN_SAMPLES:
        raise ValueError(f"log_w: expected at least {MIN_SAMPLES} samples (rows), got shape {tuple(log_w.shape)}")
    size = min(n // 5, math.ceil(3 * math.sqrt(n)))
    ordered = log_w.double().sort(0).values
    weights = (ordered[-size - 1 :] - ordered[-1]).exp()
    tail = weights[1:] - weights[0]
    flat = tail[-1] < ROUNDING
    k = fit_shape(torch.where(flat, torch.linspace(0.1, 1.0, size).to(tail).reshape(-1, *[1] * flat.dim()), tail))
    k = (k * size + PRIOR_K * PRIOR_SIZE) / (size + PRIOR_SIZE)
    return torch.where(flat, -math.inf, k)


def fit_shape(y: Tensor) -> Tensor:
    """Return the shape of a generalized Pareto distribution from sorted excesses, of shape ``(samples, *batch)``."""
    n = y.shape[0]
    points = 30 + int(math.sqrt(n))
    grid = torch.arange(1, points + 1, dtype=y.dtype, device=y.device).reshape(-1, *[1] * (y.dim() - 1))
    quartile = y[int(n / 4 + 0.5) - 1].clamp(min=torch.finfo(y.dtype).tiny)
    # theta = -k / sigma, on a grid below 1 / max(y)
    theta = 1 / y[-1] + (1 - (points / (grid - 0.5)).sqrt()) / (3 * quartile)
    k = torch.log1p(-theta.unsqueeze(1) * y).mean(1)
    share = (n * ((-theta / k).log() - k - 1)).softmax(0)
    return torch.log1p(-(share * theta).sum(0) * y).mean(0)
