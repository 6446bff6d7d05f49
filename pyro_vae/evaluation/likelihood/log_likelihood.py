"""The log-likelihood of each datum by importance sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import at_once, batches_of
from pyro_vae.evaluation.laboratory.memory import refuse_too_many
from pyro_vae.evaluation.laboratory.table import number
from pyro_vae.evaluation.likelihood.pareto import LEAST, pareto_k
from pyro_vae.evaluation.result import PerExample, Result
from pyro_vae.programs.program import Program, device_of, evaluating
from pyro_vae.trace import run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LogLikelihood", "log_likelihood", "log_weights"]

#: Above this shape of their tail importance weights do not average well at any practical number of particles.
HEAVY = 0.7


@dataclass(frozen=True)
class LogLikelihood(PerExample, Result):
    r"""Importance-weighted log-likelihoods, in nats.

    Attributes:
        per_datum: :math:`\log \frac1K \sum_k w_k` of each datum, a tensor of shape ``(n,)`` on the CPU
        noise: Monte Carlo standard error of each entry (delta method), shape ``(n,)``
        ess: effective sample size :math:`(\sum w)^2 / \sum w^2` of each datum, shape ``(n,)``
        pareto_k: shape of the tail of the weights of each datum (:func:`pareto_k`), shape ``(n,)``; NaN below 25
            particles
        num_particles: K
    """

    per_datum: Tensor
    noise: Tensor
    ess: Tensor
    pareto_k: Tensor
    num_particles: int

    @property
    def source(self) -> str:
        """How the values were found."""
        return f"importance sampling, {self.num_particles:,} particles"

    @property
    def heavy(self) -> float:
        """Share of the data with a Pareto k above 0.7, whose estimate is not to be trusted; NaN where k is unknown."""
        return math.nan if self.pareto_k.isnan().all() else float((self.pareto_k > HEAVY).double().mean())

    def __float__(self) -> float:
        return self.mean

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a datum."""
        columns = {
            "log_likelihood": self.per_datum,
            "noise": self.noise,
            "ess": self.ess,
            "pareto_k": self.pareto_k,
        }
        values = torch.stack([c.double() for c in columns.values()], 1).tolist()
        return [{"datum": i, **dict(zip(columns, row, strict=True))} for i, row in enumerate(values)]

    def summary(self) -> list[dict[str, Any]]:
        """Return one row: the mean and how far it can be trusted."""
        return [
            {
                "data": f"{len(self.per_datum):,}",
                "particles": f"{self.num_particles:,}",
                "log-likelihood (nats/datum)": number(self.mean, self.standard_error, 5),
                "from the draws": number(self.monte_carlo_error),
                "ESS, median": number(float(self.ess.median())),
                "Pareto k, median": number(float(self.pareto_k.median()), digits=2),
                "k > 0.7": "-" if math.isnan(self.heavy) else f"{self.heavy:.1%}",
            }
        ]

    def plot(self) -> Figure:
        """Draw the log-likelihoods, effective sample sizes and Pareto k of the data."""
        from pyro_vae.plots import log_likelihoods

        return log_likelihoods(self)

    def __str__(self) -> str:
        tail = "" if math.isnan(self.heavy) else f"; Pareto k above {HEAVY} for {self.heavy:.1%} of the data"
        return (
            f"{self.mean:.2f} nats per datum (standard error {self.standard_error:.2f} over {len(self.per_datum):,} "
            f"data, {self.monte_carlo_error:.3f} from {self.num_particles:,} particles{tail})"
        )


def log_likelihood(
    program: Program,
    x: Any,
    *,
    num_particles: int = 1000,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> LogLikelihood:
    r"""Estimate the log-likelihood of each datum by importance sampling from the guide.

    .. math:: \log p(x) \approx \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)},
              \qquad z_k \sim q(z \mid x)

    The estimate is a lower bound in expectation and rises to the truth with K. Latents that data share (the weights of
    a Bayesian decoder) are drawn from the guide once for each pass of particles, and what is estimated is the
    likelihood given them. Weights, buffers, modes and random
    streams are left as they were.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        num_particles: K, draws for each datum
        batch_size: data at a time; by default as many as keep memory small
        seed: of the draws
        progress: show a progress bar

    Returns:
        The estimate of each datum with its error; prints as one line.

    Raises:
        ValueError: the data do not fit the program, or there are no particles, or more than memory holds.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(10)
        >>> found = pv.evaluation.log_likelihood(toy.program, x, num_particles=50)
        >>> bool((found.per_datum - toy.log_evidence(x)).abs().max() < 1e-3)
        True
    """
    check_int("num_particles", num_particles)
    batches = batches_of(program, x, batch_size)
    device = device_of(program)
    most = at_once(batches)
    if batch_size is None:
        batches.batch_size = max(1, most // num_particles)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    if num_particles > most:  # passes are of bounded size, but the weights of a datum are summed up together
        refuse_too_many(
            "num_particles", num_particles, lambda k: weigh_up(torch.zeros(k, 1, device=device)), device, few=10_000
        )
    with evaluating(program), fork_rng(device, seed):
        bar = progress_bar(
            batches.epoch(0),
            total=batches.steps,
            desc="log-likelihood",
            unit="batch",
            progress=progress,
        )
        for batch in bar:
            per_pass = max(1, most // batch[0].shape[0])
            log_w = torch.cat(
                [
                    log_weights(program, batch, min(per_pass, num_particles - done))
                    for done in range(0, num_particles, per_pass)
                ]
            )
            found.append(weigh_up(log_w))
    return LogLikelihood(*(torch.cat(column).cpu() for column in zip(*found, strict=True)), num_particles)


def log_weights(program: Program, batch: tuple[Tensor, ...], num_particles: int) -> Tensor:
    """Return log p(x, z) - log q(z given x) at draws of the guide, of shape (num_particles, batch)."""
    terms = run(program.model, program.guide, batch, {}, num_particles=num_particles).split()[0]
    return terms.log_w().expand(num_particles, -1)


def weigh_up(log_w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-mean, its standard error, effective sample size and Pareto k, from (particles, batch)."""
    log_w = log_w.double()
    tail = pareto_k(log_w) if len(log_w) >= LEAST else torch.full_like(log_w[0], math.nan)
    return *summarize(log_w), tail


def summarize(log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-mean, its standard error and the effective sample size, from (particles, batch)."""
    k = log_w.shape[0]
    total = log_w.logsumexp(0)
    share = (log_w - total).exp()
    ess = 1 / share.square().sum(0)
    # variance of the mean of w over its square: (1/k) (sum of shares squared * k - 1) * k / (k - 1)
    noise = ((1 / ess - 1 / k).clamp(min=0) * (k / max(k - 1, 1))).sqrt()
    return total - math.log(k), noise if k > 1 else torch.full_like(total, math.nan), ess
