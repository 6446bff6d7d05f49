"""Posterior and prior predictive checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.over import one_batch
from pyro_vae.evaluation.result import Result
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.trace import Call, Sampled
from pyro_vae.trace.simulate import simulate

__all__ = ["PredictiveCheck", "predictive_check"]


@dataclass(frozen=True)
class PredictiveCheck(Result, plot="predictive_checks"):
    """Test statistics of the data and of replicated data.

    Attributes:
        observed: by name, the statistic of the data
        replicated: by name, the statistics of the replicated data sets, of shape ``(num_samples,)``
    """

    observed: dict[str, float]
    replicated: dict[str, Tensor]

    @property
    def p_values(self) -> dict[str, float]:
        """Two-sided p-values; small where the model misses the statistic."""
        found = {}
        for name, value in self.observed.items():
            r = self.replicated[name]
            above, below = int((r >= value).sum()), int((r <= value).sum())
            found[name] = min(1.0, 2 * (1 + min(above, below)) / (1 + len(r)))
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per statistic."""
        return [
            {
                "statistic": name,
                "observed": value,
                "replicated": float(self.replicated[name].mean()),
                "std": float(self.replicated[name].std()),
                "p": self.p_values[name],
            }
            for name, value in self.observed.items()
        ]


@in_turn
def predictive_check(
    program: Program,
    x: Any,
    statistics: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    num_samples: int = 200,
    prior: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> PredictiveCheck:
    r"""Compare statistics T of the data with those of replicated data sets.

    .. math:: x^{\text{rep}}_n \sim \int p(x \mid z)\, q(z \mid x_n)\, dz \quad\text{or}\quad
              x^{\text{rep}}_n \sim p(x), \qquad p = P(T(x^{\text{rep}}) \ge T(x)), \text{ two-sided}

    Posterior replications have seen the data, so they agree with them too easily. With ``prior=True`` the replications
    are new data sets of the model, and the p-value is uniform if the model is true.

    References:
        Posterior predictive assessment of model fitness via realized discrepancies (Gelman et al., 1996)

    Args:
        program: a Program that observes x
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        statistics: by name, callables from a data set of the shape of ``x`` to one number
        num_samples: number of replicated data sets
        prior: whether to sample the latents from the prior instead of the posterior
        seed: random seed
        progress: show a progress bar

    Returns:
        The statistics.

    Raises:
        ValueError: the data do not fit the program, they cannot be simulated, there are no statistics, or one does not
            return a single number.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = predictive_check(toy.program, toy.draw(50), {"spread": lambda x: x.std()}, prior=True)
        >>> found.p_values["spread"] > 0.01
        True
    """
    num_samples = check_int("num_samples", num_samples)
    if not statistics:
        raise ValueError("statistics: expected at least one callable by name, got none")
    batch = one_batch(program, x, seed=seed)
    observed = {name: value_of(name, statistic, batch[0]) for name, statistic in statistics.items()}
    found: dict[str, list[float]] = {name: [] for name in statistics}
    with evaluating(program), fork_rng(batch, seed):
        call = Call(program.model, program.guide, batch, {})
        for _ in progress_bar(range(num_samples), desc="replications", unit="data set", progress=progress):
            given = None if prior else call.trace(program.guide, Sampled()).sites
            made = simulate(program.model, batch, given)
            for name, statistic in statistics.items():
                found[name].append(value_of(name, statistic, made.batch[0]))
    return PredictiveCheck(observed, {name: torch.tensor(values) for name, values in found.items()})


def value_of(name: str, statistic: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return a statistic as a number."""
    value = torch.as_tensor(statistic(x))
    if value.numel() != 1:
        raise ValueError(
            f"statistics: expected one number such as lambda x: x.std(), got shape {tuple(value.shape)} from {name!r} "
            f"for a data set of shape {tuple(x.shape)}"
        )
    return float(value)
