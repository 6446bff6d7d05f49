"""The log-likelihood of each example, by as many particles as it needs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.validation import check_number
from pyro_vae.evaluation.likelihood.annealing_path import AnnealingError
from pyro_vae.evaluation.likelihood.importance_sampling import HEAVY, LogLikelihood, importance_sampled
from pyro_vae.evaluation.likelihood.marginal_bounds import marginal_bounds
from pyro_vae.evaluation.over import one_batch, require_order
from pyro_vae.programs.program import Program

__all__ = ["log_likelihood"]

#: How often the number of particles is multiplied by 4 before annealing.
ROUNDS = 3


@in_turn
def log_likelihood(
    program: Program,
    x: Any,
    *,
    num_particles: int = 1000,
    batch_size: int | None = None,
    until: float | None = None,
    weights: Any = None,
    seed: int = 0,
    progress: bool = True,
) -> LogLikelihood:
    r"""Estimate the log-likelihood of each example by importance sampling from the guide.

    .. math:: \log p(x) \approx \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)},
              \qquad z_k \sim q(z \mid x)

    The estimate is a lower bound in expectation and converges to the exact value as K grows. Latents that all examples
    share, such as the weights of a Bayesian decoder, are sampled once per pass; the estimate is conditional on them.

    With ``until``, examples with a larger Monte Carlo error, or a Pareto k above 0.7, are estimated again with 4, 16
    and 64 times as many particles, until both are low enough. What is left is annealed (:func:`marginal_bounds`) if
    the latents allow it, and keeps the better of the two estimates.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519;
        Pareto smoothed importance sampling (Vehtari et al., 2024), https://arxiv.org/abs/1507.02646

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        num_particles: K, samples per example
        batch_size: examples at a time; by default as many as keep memory small
        until: Monte Carlo standard error of an example to reach, in nats, such as 0.1; None for one estimate with
            ``num_particles``. It needs data in memory
        weights: one weight per example in the mean and its errors, of shape ``(n,)``, such as frequencies or
            importance weights; only their ratios matter. None for equal weights
        seed: random seed
        progress: show a progress bar

    Returns:
        The estimate for each example with its error; the mean is
        :math:`\sum_n w_n \log p(x_n) / \sum_n w_n` with weights.

    Raises:
        ValueError: the data or weights do not fit, ``num_particles`` is below 1 or takes too much memory, or
            ``until`` is not positive.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(10)
        >>> found = pv.evaluation.log_likelihood(toy.program, x, num_particles=50)
        >>> bool((found.per_example - toy.log_evidence(x)).abs().max() < 1e-3)
        True
    """
    if until is not None:
        check_number("until", until, above=0)
        require_order(x)
    options: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "progress": progress}
    found = importance_sampled(program, x, num_particles, weights=weights, desc="log-likelihood", **options)
    if until is None:
        return found
    return estimate_until(program, one_batch(program, x, seed=seed), found, until, **options)


def estimate_until(
    program: Program, batch: tuple[Tensor, ...], found: LogLikelihood, until: float, **options: Any
) -> LogLikelihood:
    """Estimate unreliable examples again: with more particles, then by annealing."""
    columns = [found.per_example.clone(), found.per_example_error.clone(), found.ess.clone(), found.pareto_k.clone()]
    particles = torch.full(found.per_example.shape, found.num_particles)

    def replace_rows(rows: Tensor, values: tuple[Tensor, ...], number: int) -> None:
        particles[rows] = number
        for column, value in zip(columns, values, strict=True):
            column[rows] = value

    for power in range(1, ROUNDS + 1):
        rows = unreliable(columns, until)
        if len(rows):
            k = found.num_particles * 4**power
            more = importance_sampled(
                program, take(batch, rows), k, desc=f"log-likelihood, {k:,} particles", **options
            )
            replace_rows(rows, (more.per_example, more.per_example_error, more.ess, more.pareto_k), k)
    rows = unreliable(columns, until)
    if len(rows):
        progress, seed = options["progress"], options["seed"]
        try:
            bounds = marginal_bounds(program, take(batch, rows), num_simulated=0, seed=seed, progress=progress)
        except AnnealingError:  # such latents keep the estimate of most particles
            pass
        else:
            error, tail = columns[1][rows], columns[3][rows]
            better = (tail > HEAVY) | ~(error <= bounds.per_example_error)
            values = (bounds.per_example[better], bounds.per_example_error[better])
            unknown = torch.full_like(values[0], math.nan)
            replace_rows(rows[better], (*values, unknown, unknown), 0)
    return LogLikelihood(*columns, found.num_particles, particles, weights=found.weights)


def unreliable(columns: list[Tensor], until: float) -> Tensor:
    """Return the rows with a Monte Carlo error above the wanted one, or with weights of a heavy tail."""
    _, error, _, tail = columns
    return (~(error <= until) | (tail > HEAVY)).nonzero()[:, 0]


def take(batch: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
    """Return some rows of a batch."""
    return tuple(column[rows.to(column.device)] for column in batch)
